-- Gives overdue commands to one edge. KEYS: deadlines, and which edge sweeps. ARGV: the edge, for how many milliseconds it is
-- the only one, after how many, and how many.
-- Answers 0, and of each command its name and its deadline; nothing more when another edge sweeps.

local by = redis.call('GET', KEYS[2])
if by and by ~= ARGV[1] then
  return { 0 }
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local answer = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', ARGV[3], ARGV[4])
table.insert(answer, 1, 0)
return answer
