-- Ends a session if it still holds its gateway. KEYS: heads. ARGV: gateway, epoch, reason.
-- Answers whether a head was none, the clock, and 0, or 1 with the revision of the end and its time.

local head, bad = head_of(redis.call('HGET', KEYS[1], ARGV[1]))
local now = clock()
if not head or head.epoch ~= tonumber(ARGV[2]) then
  return { bad, now, 0 }
end
if head.edge ~= '-' then
  finish(head, ARGV[3], now)
  redis.call('HSET', KEYS[1], ARGV[1], text_of_head(head))
elseif head.reason ~= ARGV[3] then
  return { bad, now, 0 }
end
return { bad, now, 1, head.rev, head.since }
