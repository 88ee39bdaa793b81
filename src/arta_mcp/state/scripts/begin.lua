-- Begins an entry, or finds the one that stands in its place: `State.begin`.
--
-- KEYS  1 the entry  2 the owner's list  3 the epoch  4 the index of the idempotency key, or the
--       list of those that answered no call, if the call has one or the other  5.. its counts
-- ARGV  1 process  2 id, which marks this call  3 `key`, `caller` or `plain`  4 caller  5 ordered
--       6 made  7 '1' for a call that counts as answered  8 seconds after which nothing is taken up
--       9 the part of a known cut that a call had  10 microseconds that the time is put forward
--       11 epoch as the process knows it  12 when the call first came, '' for now
--       13.. for each count how much there may be in an hour, and what this entry counts as; then
--       token and '1' or '' of each caller of the process's own that was asked for: whether it
--       still waits
-- gives {'lost'} when the store has lost its memory, {'ask', token...} for callers to be told of,
--       {'doubt', came} while a caller's process may live or not, {'theirs', entry}, {'full', which
--       count, how much it has, microseconds until there is room}, else {'ours', id, version,
--       created_at, how much each count has}

acts = true
local me, id, kind, caller = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- One command for all; of the list, which is no string, it gives nothing.
local found = redis.call('MGET', unpack(KEYS, 3))
if found[1] ~= ARGV[11] then
    return {'lost'}
end
local clock = now()
local came = tonumber(ARGV[12]) or clock
local time = seconds(clock + ARGV[10])

-- Microseconds until so much of a count is an hour old
local function wait_for(amount, lines)
    for at, counted in string.gmatch(lines, '%w+ (%d+) (%d+)\n') do
        amount = amount - counted
        if amount <= 0 then
            return at + HOUR - clock - ARGV[10]
        end
    end
    return HOUR -- more than there ever is room for
end

local function begin(at, version)
    local reply, values, full = {'ours', at, version, time}, {}, nil
    for i = 5, #KEYS do
        local hourly, amount = ARGV[3 + 2 * i], ARGV[4 + 2 * i]
        local used, lines = count_others(found[i - 2], clock + ARGV[10], at)
        local over = used + amount - hourly
        if over > 0 then
            local wait = wait_for(over, lines)
            if not full or wait > full[4] then
                full = {'full', i - 5, used, wait}
            end
        end
        values[i] = string.format('%d\n%s%s %.0f %d\n', used + amount, lines, short(at),
            clock + ARGV[10], amount)
        reply[#reply + 1] = used + amount
    end
    if full then
        return full
    end
    for i = 5, #KEYS do
        redis.call('SET', KEYS[i], values[i], 'PX', HOUR / 1000)
    end
    if kind == 'key' and at == id then
        redis.call('SET', KEYS[4], id)
    elseif kind == 'caller' then
        redis.call('ZADD', KEYS[4], time, id)
    end
    redis.call('HSET', ENTRY .. at, 'version', version, 'phase', 'intended', 'created_at', time,
        'caller', caller, 'answered_at', ARGV[7] == '1' and time or '', 'cut_after', '',
        'ordered', ARGV[5], 'made', ARGV[6], 'process', me, 'mark', id,
        'key_at', kind == 'key' and KEYS[4] or '',
        'unanswered_at', kind == 'caller' and KEYS[4] or '',
        'counted_at', table.concat(KEYS, ' ', 5))
    redis.call('ZADD', KEYS[2], time, at)
    return reply
end

if kind == 'key' then
    local first = found[2]
    local entry = first and read(first, me)
    if entry then
        if entry[2] == 'intended' and redis.call('HGET', ENTRY .. first, 'mark') == id then
            return begin(first, entry[1]) -- this very call, whose answer was lost
        end
        if entry[2] ~= 'refused' then
            return {'theirs', entry}
        end
        -- once more from the start, in the same entry: whoever may still hold the old one is late
        return begin(first, entry[1] + 1)
    end
elseif kind == 'caller' then
    local told, ask = {}, {'ask'}
    for i = 5 + 2 * #KEYS, #ARGV, 2 do
        told[ARGV[i]] = ARGV[i + 1] == '1'
    end
    local after = seconds(clock + ARGV[10] - ARGV[8] * 1000000)
    local taken, cut_after
    for _, equal in ipairs(redis.call('ZRANGE', KEYS[4], '+inf', '(' .. after, 'BYSCORE', 'REV')) do
        local entry = read(equal, me)
        local phase = entry and entry[2]
        if phase == 'sending' or phase == 'submitted' or phase == 'done' then
            local process, token = string.match(entry[4], '^(.-)/(.*)$')
            local beat = process and last_beat(process, me)
            if process == me and told[token] == nil then
                ask[#ask + 1] = token
            elseif process ~= me and process and beat ~= false and (beat or 0) < came then
                return {'doubt', string.format('%.0f', came)} -- until it says once more that it lives
            elseif not process or beat == false or process == me and not told[token] then
                taken, cut_after = entry, entry[6]
                if process and process ~= me then
                    -- Killed, for else it had written down how its call ended. It was to answer at
                    -- its share of what was known then, so it was cut before that.
                    local age = math.max(0, (came + ARGV[10]) / 1000000 - entry[3])
                    cut_after = cut_after == '' and age or cut_after * ARGV[9]
                    cut_after = string.format('%.6f', cut_after)
                end
                break
            end
        end
    end
    if #ask > 1 then
        return ask
    end
    if taken then
        redis.call('HSET', ENTRY .. taken[9], 'caller', caller, 'cut_after', cut_after)
        taken[4], taken[6] = caller, cut_after
        return {'theirs', taken}
    end
end
return begin(id, 0)
