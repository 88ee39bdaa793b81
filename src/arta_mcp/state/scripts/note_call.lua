-- Keeps how a call ended; the first answer and the least cut stand: `State.note_call`.
--
-- KEYS  1 the entry
-- ARGV  1 caller  2 answered_at  3 cut_after; '' is none

local stored = redis.call('HMGET', KEYS[1], 'answered_at', 'cut_after', 'unanswered_at')
if not stored[1] then
    return
end
local answered, cut = stored[1], stored[2]
if answered == '' then
    answered = ARGV[2]
end
if cut == '' or ARGV[3] ~= '' and tonumber(ARGV[3]) < tonumber(cut) then
    cut = ARGV[3]
end
redis.call('HSET', KEYS[1], 'caller', ARGV[1], 'answered_at', answered, 'cut_after', cut)
if answered ~= '' and stored[3] ~= '' then
    redis.call('ZREM', stored[3], string.sub(KEYS[1], #ENTRY + 1))
end
