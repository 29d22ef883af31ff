-- What every script on leases needs. A lease is one line: when it ends, or 0 when that is still to be set; whether it is
-- drained; and whether it has ended, which stays so whatever the clock does.

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function text_of(number)
  return string.format('%.0f', number)
end

-- Gives nothing for what is missing or not a lease, and whether it was something that is not a lease.
local function lease_of(text, now)
  if not text then
    return nil, 0
  end
  local ends, drained, ended = string.match(text, '^(%d+) ([01]) ([01])$')
  if not ends then
    return nil, 1
  end
  local lease = { ends = tonumber(ends), drained = drained == '1', ended = ended == '1' }
  if lease.ends > 0 and lease.ends <= now then
    lease.ended = true
  end
  return lease, 0
end

local function write(name, lease)
  local text = text_of(lease.ends) .. (lease.drained and ' 1' or ' 0') .. (lease.ended and ' 1' or ' 0')
  redis.call('HSET', KEYS[1], name, text)
end
