-- Counts an order's pictures in the hour that has passed, or counts it no more: `State.count_order`.
--
-- One member a picture, so that neither how many there are nor when there is room needs a sum.
--
-- KEYS  1 the pictures of a name, each at the time of its order in microseconds
-- ARGV  1 order  2 how many pictures, 0 for none any more  3 how many in an hour  4 microseconds that
--       the time is put forward
-- gives {how many are counted, microseconds until there is room for these, 0 when they are counted}

local HOUR = 3600000000
local clock, count, hourly = now() + ARGV[4], ARGV[2] + 0, ARGV[3] + 0

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', clock - HOUR))
if count == 0 then
    local i = 1
    while redis.call('ZREM', KEYS[1], ARGV[1] .. '/' .. i) == 1 do
        i = i + 1
    end
    return {redis.call('ZCARD', KEYS[1]), 0}
end
local used = redis.call('ZCARD', KEYS[1])
local over = used + count - hourly
if over > 0 then
    if redis.call('ZSCORE', KEYS[1], ARGV[1] .. '/1') then -- counted before, and the answer was lost
        return {used, 0}
    end
    local leaves = redis.call('ZRANGE', KEYS[1], over - 1, over - 1, 'WITHSCORES')[2]
    return {used, leaves and leaves + HOUR - clock or HOUR}
end
local members = {}
for i = 1, count do
    members[#members + 1] = string.format('%.0f', clock)
    members[#members + 1] = ARGV[1] .. '/' .. i
end
local added = redis.call('ZADD', KEYS[1], 'NX', unpack(members))
redis.call('PEXPIRE', KEYS[1], HOUR / 1000)
return {used + added, 0}
