-- Holds a lease. KEYS: leases. ARGV: the lease, and for how many milliseconds.
-- Answers whether it was none, the clock, and whether it was held already.

local now = clock()
local lease, bad = lease_of(redis.call('HGET', KEYS[1], ARGV[1]), now)
local ends = now + tonumber(ARGV[2])
if not lease then
  write(ARGV[1], { ends = ends, drained = false, ended = false })
  return { bad, now, 0 }
end
local held = not lease.drained and not lease.ended
if held then
  lease.ends = ends
end
write(ARGV[1], lease)
return { bad, now, held and 1 or 0 }
