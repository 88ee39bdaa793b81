-- Says that a process lives, renews its locks, and frees what its lost calls of `begin` left.
--
-- A process that does not say so for LEASE is dead. When none has said so for half of that, the
-- store was away or no one was there: those that live get LEASE to say so before any counts as dead.
--
-- KEYS  1 alive  2 when any process last said so  3 grace  4 epoch  5.. locks that it holds
-- ARGV  1 process  2 epoch, for a store that has none  3 milliseconds that it lives from now on
--       4 milliseconds of a lock  5 how many locks  6.. their tokens, then for each lost call:
--       version, id or key index of its entry, mark
-- gives {epoch, microseconds}

local clock = now()
local last = tonumber(redis.call('GET', KEYS[2])) or 0
local text = string.format('%.0f', clock)
if clock - last > LEASE * 500 then
    redis.call('SET', KEYS[3], 1, 'PX', LEASE)
end
redis.call('SET', KEYS[2], text)
redis.call('SET', KEYS[1], text, 'PX', ARGV[3])
local epoch = redis.call('GET', KEYS[4])
if not epoch then
    epoch = ARGV[2]
    redis.call('SET', KEYS[4], epoch)
end
local locks = tonumber(ARGV[5])
for i = 1, locks do
    if redis.call('GET', KEYS[4 + i]) == ARGV[5 + i] then
        redis.call('PEXPIRE', KEYS[4 + i], ARGV[4])
    end
end
for i = 6 + locks, #ARGV, 3 do
    local version, at, mark = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    -- a call with a key may have begun the entry that its key has: `at` is that index then
    local entry = string.sub(at, 1, #ENTRY) == ENTRY and at or ENTRY .. (redis.call('GET', at) or '')
    local stored = redis.call('HMGET', entry, 'version', 'phase', 'process', 'mark',
        'counted_at')
    local is_it = version == '' and stored[4] == mark or version ~= '' and stored[1] == version
    if is_it and stored[3] == ARGV[1] and (stored[2] == 'intended' or stored[2] == 'sending') then
        redis.call('HSET', entry, 'version', stored[1] + 1, 'phase', 'refused', 'process', '',
            'mark', '')
        uncount(stored[5], string.sub(entry, #ENTRY + 1))
    end
end
return {epoch, text}
