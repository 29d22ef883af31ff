-- Lets a lease end after the time for moving; the first call counts. KEYS: leases. ARGV: the lease, and how many
-- milliseconds. Answers whether it was none.

local now = clock()
local lease, bad = lease_of(redis.call('HGET', KEYS[1], ARGV[1]), now)
lease = lease or { ends = 0, drained = false, ended = false }
if not lease.drained and not lease.ended then
  lease.drained, lease.ends = true, now + tonumber(ARGV[2])
end
write(ARGV[1], lease)
return { bad }
