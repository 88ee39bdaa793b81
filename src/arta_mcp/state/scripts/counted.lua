-- How much was begun under a name in the hour that has passed: `State.counted`.
--
-- KEYS  1 the count
-- ARGV  1 microseconds that the time is put forward

local used = count_others(redis.call('GET', KEYS[1]), now() + ARGV[1], 'none')
return used
