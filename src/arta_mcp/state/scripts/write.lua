-- Writes an entry as it is now, unless another wrote it since it was read: `State.write`. One that is
-- refused counts no more.
--
-- KEYS  1 the entry  2 the index of its record id, if it has one
-- ARGV  1 process  2 id  3 version as read  4 phase  5 made  6 record id, or ''
-- gives `written`, `late`, `gone` for an entry that the store does not know, or `taken` when the
--       record id is that of another

local stored = redis.call('HMGET', KEYS[1], 'version', 'phase', 'made', 'record',
    'counted_at')
if not stored[1] then
    return 'gone'
end
if stored[1] ~= ARGV[3] then
    local is_same = stored[1] + 0 == ARGV[3] + 1 and stored[2] == ARGV[4] and stored[3] == ARGV[5]
    return is_same and 'written' or 'late' -- the same: written before, and the answer was lost
end
if ARGV[6] ~= '' and not stored[4] and redis.call('SETNX', KEYS[2], ARGV[2]) == 0
    and redis.call('GET', KEYS[2]) ~= ARGV[2] then
    return 'taken'
end
local works = ARGV[4] == 'intended' or ARGV[4] == 'sending'
local written = {'version', ARGV[3] + 1, 'phase', ARGV[4], 'made', ARGV[5],
    'process', works and ARGV[1] or '', 'mark', ''}
if ARGV[6] ~= '' then
    written[#written + 1] = 'record'
    written[#written + 1] = ARGV[6]
    written[#written + 1] = 'counted_at' -- for good
    written[#written + 1] = ''
end
redis.call('HSET', KEYS[1], unpack(written))
if ARGV[4] == 'refused' then
    uncount(stored[5], ARGV[2])
end
return 'written'
