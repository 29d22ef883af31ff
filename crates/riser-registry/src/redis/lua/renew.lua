-- Holds a lease. KEYS: leases. ARGV: the lease, and for how many milliseconds.
-- Answers whether it was none, the clock, whether it was held already, and how many leases stand that are not drained.

-- Sessions that nobody holds any more keep a lease whose end is not set: that is no edge.
local function standing(now)
  local count = 0
  for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
    local lease = lease_of(text, now)
    if lease and lease.ends > 0 and not lease.drained and not lease.ended then
      count = count + 1
    end
  end
  return count
end

local now = clock()
local lease, bad = lease_of(redis.call('HGET', KEYS[1], ARGV[1]), now)
local ends = now + tonumber(ARGV[2])
if not lease then
  write(ARGV[1], { ends = ends, drained = false, ended = false })
  return { bad, now, 0, standing(now) }
end
local held = not lease.drained and not lease.ended
if held then
  lease.ends = ends
end
write(ARGV[1], lease)
return { bad, now, held and 1 or 0, standing(now) }
