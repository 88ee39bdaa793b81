-- Replaces an account, unless a later holder of its lock has done so: `State.keep_account`.
--
-- KEYS  1 the account
-- ARGV  1 fence  2 account, or '' for none
-- gives whether it was written

local fence = redis.call('HGET', KEYS[1], 'fence')
if fence and tonumber(fence) > tonumber(ARGV[1]) then
    return 0
end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'account', ARGV[2])
return 1
