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
-- {arta}:alive:<process>  when it last said that it lives, in microseconds; gone after LEASE, and 0
--                         for a while once it has said that it ends
-- {arta}:grace            there while those that live may not have been able to say so
--
-- Time is the server's own: no clock of a caller decides anything.

local LEASE = 4000 -- milliseconds
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
