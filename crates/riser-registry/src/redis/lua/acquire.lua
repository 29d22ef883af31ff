-- Begins a session. KEYS: heads, values, open commands, swept leases. ARGV: gateway, edge and number of the lease,
-- greatest epoch that is known or an empty text, the note of a sweep behind which the building was put into the lease's
-- index again or an empty text, and for how many milliseconds takeovers are counted.
-- Answers whether a head was none, the clock, and 0 and the note of a sweep, or 1 and what there is to say.

local gateway, edge, start = ARGV[1], ARGV[2], ARGV[3]
local lease = edge .. ':' .. start
local head, bad = head_of(redis.call('HGET', KEYS[1], gateway))
local fields = redis.call('HLEN', KEYS[2])
local open = redis.call('HGET', KEYS[3], gateway)
local now = clock()
if not passes(KEYS[4], lease, ARGV[5]) then
  return { bad, now, 0, redis.call('HGET', KEYS[4], lease) }
end

local epoch = now
if ARGV[4] ~= '' then
  epoch = math.max(epoch, tonumber(ARGV[4]) + 1)
end
local answer
if head then
  -- Fewer values than there were: somebody took them.
  head.missing = head.missing or fields < head.paths
  epoch = math.max(epoch, head.epoch + 1)
  local from_edge, from_start, taken = head.edge, head.start, head.edge ~= '-'
  local before_epoch, before_rev = head.epoch, head.rev
  if not taken then
    head.since = now
  end
  head.reason = taken and 'takeover' or '-'
  if now >= head.counted + tonumber(ARGV[6]) then
    head.takeovers, head.counted = 0, now
  end
  if taken then
    head.takeovers = math.min(head.takeovers + 1, 65535)
  end
  head.epoch, head.rev, head.at, head.edge, head.start = epoch, 0, now, edge, start
  answer = { bad, now, 1, epoch, head.since, head.takeovers, (not head.missing and fields > 0) and 1 or 0,
    open, before_epoch, before_rev, from_edge, from_start }
else
  redis.call('UNLINK', KEYS[2])
  head = { epoch = epoch, rev = 0, at = now, since = now, reason = '-', edge = edge, start = start, missing = false,
    takeovers = 0, counted = 0, paths = 0, bytes = 0, stale = 0 }
  answer = { bad, now, 1, epoch, now, 0, 0, open }
end
redis.call('HSET', KEYS[1], gateway, text_of_head(head))
return answer
