-- Writes the end of a job; one that is done stays as it is: `State.finish`.
--
-- KEYS  1 the entry  2 the timings of its style
-- ARGV  1 process  2 id  3 phase  4 made  5 the timing, or ''  6 how many timings are kept
-- gives {'written', version}, {'stands', entry...} or {'gone'}

local stored = redis.call('HMGET', KEYS[1], 'version', 'phase')
if not stored[1] then
    return {'gone'}
end
if stored[2] == 'done' then
    return {'stands', read(ARGV[2], ARGV[1])}
end
local version = stored[1] + 1
redis.call('HSET', KEYS[1], 'version', version, 'phase', ARGV[3], 'made', ARGV[4], 'process', '')
-- trimmed now and then: a command less for every other generation
if ARGV[5] ~= '' and redis.call('LPUSH', KEYS[2], ARGV[5]) >= 2 * ARGV[6] then
    redis.call('LTRIM', KEYS[2], 0, ARGV[6] - 1)
end
return {'written', version}
