-- Counts an owner's order in the hour that runs; false when it has made all: `State.count_order`.
--
-- KEYS  1 the count of the owner and hour
-- ARGV  1 how many it may make  2 milliseconds until the hour is over

if tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1]) then
    return false
end
redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
