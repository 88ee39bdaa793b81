-- Removes one page of an owner's entries that have ended: `State.prune`.
--
-- KEYS  1 the owner's list
-- ARGV  1 begun before these seconds  2 how many older ones stay  3 how many to look at
--       4 the beginning of the index of record ids
-- gives {how many were looked at, how many stay, record id or '' of each that was removed...}

local page = redis.call('ZRANGE', KEYS[1], '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', ARGV[2], ARGV[3])
local result = {#page, 0}
for _, id in ipairs(page) do
    local it = redis.call('HMGET', ENTRY .. id, 'phase', 'record', 'key_at', 'unanswered_at')
    local phase = it[1]
    if not phase or phase == 'done' or phase == 'failed' or phase == 'refused' then
        redis.call('DEL', ENTRY .. id)
        redis.call('ZREM', KEYS[1], id)
        if it[2] and it[2] ~= '' then
            redis.call('DEL', ARGV[4] .. it[2])
        end
        if it[3] and it[3] ~= '' then
            redis.call('DEL', it[3])
        end
        if it[4] and it[4] ~= '' then
            redis.call('ZREM', it[4], id)
        end
        result[#result + 1] = it[2] or ''
    else
        result[2] = result[2] + 1
    end
end
return result
