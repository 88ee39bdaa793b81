-- Adds an entry that was begun elsewhere, or in a memory that the store has lost: `State.adopt`.
--
-- KEYS  1 the entry  2 the owner's list  3 the index of its record id, if it has one
--       4 the index of its key, if it has one
-- ARGV  1 process  2 id  3 version  4 phase  5 created_at  6 caller  7 answered_at  8 cut_after
--       9 ordered  10 made  11 record id, or ''  12 whether it has a key: '1' or ''
-- gives the entry that stands: this one, or that of the record id

local me, id = ARGV[1], ARGV[2]
if ARGV[11] ~= '' and redis.call('SETNX', KEYS[3], id) == 0 then
    local stands = redis.call('GET', KEYS[3])
    local entry = read(stands, me)
    if entry then
        return entry
    end
    redis.call('SET', KEYS[3], id)
end
local works = ARGV[4] == 'intended' or ARGV[4] == 'sending'
-- a key that was used again since then is that other entry's
local has_key = ARGV[12] == '1' and redis.call('SETNX', KEYS[4], id) == 1
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'phase', ARGV[4], 'created_at', ARGV[5],
    'caller', ARGV[6], 'answered_at', ARGV[7], 'cut_after', ARGV[8], 'ordered', ARGV[9],
    'made', ARGV[10], 'process', works and me or '', 'mark', '', 'record', ARGV[11],
    'key_at', has_key and KEYS[4] or '', 'unanswered_at', '')
redis.call('ZADD', KEYS[2], ARGV[5], id)
return read(id, me)
