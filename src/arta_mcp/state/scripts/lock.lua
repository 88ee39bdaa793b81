-- Takes a lock if it is free; gives its fence, or false: `State.lock`.
--
-- The fence rises with each holder. It begins at the time, so that a store which has lost its memory
-- gives no lower one.
--
-- KEYS  1 the lock  2 the last fence
-- ARGV  1 token of who asks  2 milliseconds that it holds without being renewed

if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
    and redis.call('GET', KEYS[1]) ~= ARGV[1] then -- the same token: the answer was lost
    return false
end
local fence = math.max(now(), (tonumber(redis.call('GET', KEYS[2])) or 0) + 1)
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[2], fence)
return fence
