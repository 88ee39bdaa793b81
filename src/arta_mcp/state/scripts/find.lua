-- The entry with a record id: `State.find`.
--
-- KEYS  1 the index of the record id
-- ARGV  1 process

local id = redis.call('GET', KEYS[1])
return id and read(id, ARGV[1])
