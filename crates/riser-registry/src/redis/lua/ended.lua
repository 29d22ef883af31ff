-- Lists the leases that have ended, and sets the end of those that are known from a session only. KEYS: leases.
-- ARGV: for how many milliseconds such a one is held. Answers how many were none, and of each that has ended its name and
-- whether it was drained.

local now = clock()
local all = redis.call('HGETALL', KEYS[1])
local answer = { 0 }
for at = 1, #all, 2 do
  local name = all[at]
  local lease, bad = lease_of(all[at + 1], now)
  if not lease then
    redis.call('HDEL', KEYS[1], name)
    answer[1] = answer[1] + bad
  elseif lease.ended then
    answer[#answer + 1] = name
    answer[#answer + 1] = lease.drained and 1 or 0
    write(name, lease)
  elseif lease.ends == 0 then
    lease.ends = now + tonumber(ARGV[1])
    write(name, lease)
  end
end
return answer
