-- What every script begins with.
--
-- All keys carry the hash tag {arta}: they lie in one slot of a cluster, so that a script may reach
-- an entry whose id it has just read, though it is not among its KEYS.
--
-- {arta}:entry:<id>       a hash, one generation:
--     version phase created_at caller answered_at cut_after   as in JournalEntry; '' is none
--     ordered made        the columns that stay as they were begun, and the others, as JSON
--     process             whose an `intended` or `sending` entry is
--     mark                of the call of `begin` that made it what it is
--     record key_at unanswered_at     its record id, and the names of indexes that it stands in
--     counted_at          the names of counts that it stands in, with blanks between
-- {arta}:counted:<name>   what was begun under a name in an hour: how much, then a line for each entry,
--                         oldest first: the beginning of its id, microseconds, what it counts as. One
--                         string, so that a limit costs a generation one command more
-- {arta}:alive:<process>  when it last said that it lives, in microseconds; gone after LEASE, and 0
--                         for a while once it has said that it ends
-- {arta}:grace            there while those that live may not have been able to say so
--
-- Time is the server's own: no clock of a caller decides anything.

local LEASE = 4000 -- milliseconds
local HOUR = 3600000000 -- microseconds
local ENTRY = '{arta}:entry:'

-- Set by what acts on a process's death, and is run by processes that say that they live: when none
-- has, the server itself was away, and those that live have yet to come back.
local acts = false

local function now() -- microseconds since the epoch
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

local function seconds(microseconds)
    return string.format('%.6f', microseconds / 1000000)
end

-- When the process last said that it lives; false: it is dead; nil: that is not known yet
local function last_beat(process, me)
    if process == me then
        return math.huge
    end
    local beat = redis.call('GET', '{arta}:alive:' .. process)
    if beat then
        return beat ~= '0' and tonumber(beat)
    end
    if redis.call('EXISTS', '{arta}:grace') == 1 then
        return nil
    end
    local latest = acts and redis.call('GET', '{arta}:beat')
    if acts and now() - (tonumber(latest or 0)) > LEASE * 500 then
        return nil
    end
    return false
end

-- The entry as Python reads it, its phase as it is now; nil when there is none
local function read(id, me)
    local it = redis.call('HMGET', ENTRY .. id, 'version', 'phase', 'created_at', 'caller',
        'answered_at', 'cut_after', 'ordered', 'made', 'process')
    if not it[1] then
        return nil
    end
    if (it[2] == 'intended' or it[2] == 'sending') and last_beat(it[9], me) == false then
        it[2] = it[2] == 'sending' and 'unknown' or 'refused'
    end
    it[9] = id
    return it
end

local function short(id)
    return string.sub(id, 1, 12)
end

-- A count without what is an hour old by `clock`, and without the entry: how much, and its lines
local function count_others(stored, clock, id)
    stored = stored or '0\n'
    local from = string.find(stored, '\n', 1, true) + 1
    local used = string.sub(stored, 1, from - 2)
    while true do
        local _, last, at, amount = string.find(stored, '^%w+ (%d+) (%d+)\n', from)
        if not at or at + HOUR > clock then
            break
        end
        used, from = used - amount, last + 1
    end
    local lines = string.sub(stored, from)
    if string.find(stored, '\n' .. short(id) .. ' ', from - 1, true) then
        lines = string.gsub(lines, short(id) .. ' %d+ (%d+)\n', function(amount)
            used = used - amount
            return ''
        end)
    end
    return used + 0, lines
end

-- Counts an entry that came to no order no more
local function uncount(names, id)
    for name in string.gmatch(names or '', '%S+') do
        local stored = redis.call('GET', name)
        if stored then
            local used, lines = count_others(stored, 0, id)
            redis.call('SET', name, used .. '\n' .. lines, 'KEEPTTL')
        end
    end
end
