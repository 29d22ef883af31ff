-- What every script on a gateway needs: the clock, and how a head is read and written.
--
-- A head is one line: epoch, revision, when it came to that; since when, why; the edge and the number of the lease that
-- holds it (`-` and 0: none); whether values are missing; takeovers, and since when they are counted; paths, their bytes,
-- and how many of the values are stale. The number of a lease may be greater than what Lua counts exactly, and stays text.

local FIRST_INEXACT = 9007199254740992

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function text_of(number)
  return string.format('%.0f', number)
end

local HEAD = '^(%d+) (%d+) (%d+) (%d+) ([%l_-]+) ([%w_-]+) (%d+) ([01]) (%d+) (%d+) (%d+) (%d+) (%d+)$'

-- Gives nothing for what is missing or not a head, and whether it was something that is not a head.
local function head_of(text)
  if not text then
    return nil, 0
  end
  local epoch, rev, at, since, reason, edge, start, missing, takeovers, counted, paths, bytes, stale =
    string.match(text, HEAD)
  if not epoch then
    return nil, 1
  end
  local head = {
    epoch = tonumber(epoch), rev = tonumber(rev), at = tonumber(at), since = tonumber(since), reason = reason,
    edge = edge, start = start, missing = missing == '1', takeovers = tonumber(takeovers),
    counted = tonumber(counted), paths = tonumber(paths), bytes = tonumber(bytes), stale = tonumber(stale),
  }
  if head.epoch >= FIRST_INEXACT or head.rev >= FIRST_INEXACT then
    return nil, 1
  end
  return head, 0
end

local function text_of_head(head)
  return string.format('%.0f %.0f %.0f %.0f %s %s %s %d %.0f %.0f %.0f %.0f %.0f',
    head.epoch, head.rev, head.at, head.since, head.reason, head.edge, head.start, head.missing and 1 or 0,
    head.takeovers, head.counted, head.paths, head.bytes, head.stale)
end

-- Who holds a gateway: its epoch and edge, or an empty text.
local function holder_of(head)
  if not head or head.edge == '-' then
    return ''
  end
  return text_of(head.epoch) .. ' ' .. head.edge
end

-- Ends the session of a head.
local function finish(head, reason, now)
  head.edge, head.start, head.reason = '-', '0', reason
  head.rev, head.since, head.at = head.rev + 1, now, now
end

-- Whether a lease may get a gateway: unless it was swept in the building, by another sweep than the one that is known. Who
-- knows that one has put the building into the lease's index again since, and so the note of it has done its work.
local function passes(swept, lease, known)
  local note = redis.call('HGET', swept, lease)
  if not note then
    return true
  elseif note ~= known then
    return false
  end
  redis.call('HDEL', swept, lease)
  return true
end
