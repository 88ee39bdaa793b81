-- One page of an owner's entries, newest first: `State.latest`.
--
-- KEYS  1 the owner's list
-- ARGV  1 process  2 how many to leave out  3 how many to give

local entries = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[2] + ARGV[3] - 1, 'REV')) do
    entries[#entries + 1] = read(id, ARGV[1]) or {'', '', '', '', '', '', '', '', id}
end
return entries
