-- Notes what decided commands of a tenant take. KEYS: by age, bytes of each, bytes of all. ARGV: bytes that all may take,
-- bytes that are left when some are given up, most to give up, for how many milliseconds one is kept at all, and of each
-- command its name, when it was accepted and its bytes (0: it is gone).
-- Answers 0, and of those to be given up, the oldest first, their names.

note(ARGV[4], 5)
for key = 1, 3 do
  redis.call('PEXPIRE', KEYS[key], ARGV[4])
end

local answer = { 0 }
local all = tonumber(redis.call('GET', KEYS[3]) or '0')
if all > tonumber(ARGV[1]) then
  for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[3]) - 1)) do
    if all <= tonumber(ARGV[2]) then
      break
    end
    answer[#answer + 1] = name
    all = all - tonumber(redis.call('HGET', KEYS[2], name) or '0')
  end
end
return answer
