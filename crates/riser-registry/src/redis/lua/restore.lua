-- Registers a session again. KEYS: heads, values, swept leases. ARGV: gateway, edge and number of the lease, the note of a
-- sweep as for acquire, epoch, revision, and since when it is online.
-- Answers whether a head was none, the clock, and 0 and the note of a sweep, or 1 and: 0 and whether state was lost; 1 and
-- the newer epoch; 2 when it has ended.

local gateway, edge, start = ARGV[1], ARGV[2], ARGV[3]
local lease = edge .. ':' .. start
local epoch, rev, since = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local head, bad = head_of(redis.call('HGET', KEYS[1], gateway))
local fields = redis.call('HLEN', KEYS[2])
local now = clock()
if not passes(KEYS[3], lease, ARGV[4]) then
  return { bad, now, 0, redis.call('HGET', KEYS[3], lease) }
end

if head and head.epoch > epoch then
  return { bad, now, 1, 1, head.epoch }
end
if head and head.epoch == epoch then
  if head.edge == '-' then
    return { bad, now, 1, 2, 0 }
  end
  head.edge, head.start = edge, start
  head.missing = head.missing or fields < head.paths
  if head.rev < rev then
    head.missing, head.rev, head.at = true, rev, now
  end
else
  if not head then
    redis.call('UNLINK', KEYS[2])
    head = { paths = 0, bytes = 0, stale = 0 }
  end
  head.epoch, head.rev, head.at, head.since, head.reason = epoch, rev, now, since, '-'
  head.edge, head.start, head.missing, head.takeovers, head.counted = edge, start, true, 0, 0
end
redis.call('HSET', KEYS[1], gateway, text_of_head(head))
return { bad, now, 1, 0, head.missing and 1 or 0 }
