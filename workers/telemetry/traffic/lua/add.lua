-- Add the bytes of one report to the traffic of several series.
--
-- A ring is a string of integers of 8 bytes: first the latest interval that it has, counted from the epoch, then the
-- bytes of each interval at the place interval % length. So its size never changes.
--
-- KEYS: number of the process's last report, registry of series, then for each series: ring of minutes, ring of hours
-- ARGV: time or '' for the server's, number of this report, seconds to remember it, most series, minutes in a ring,
--       hours in a ring, then for each series: name, bytes
-- Returns: names of the series for which there is no room
-- Atomic: a report is counted once, however often it is sent, and two reports of one interval both count.
-- Uses: lib_now

local last = redis.call('GET', KEYS[1])
if last and tonumber(last) and tonumber(last) >= tonumber(ARGV[2]) then return {} end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
local at = now(ARGV[1])

local function clear(key, length, first, count)
  -- At most two pieces: up to the end of the ring, and from its beginning.
  local place = first % length
  local piece = math.min(count, length - place)
  redis.call('SETRANGE', key, 8 * (1 + place), string.rep('\0', 8 * piece))
  if count > piece then redis.call('SETRANGE', key, 8, string.rep('\0', 8 * (count - piece))) end
end

local function add(key, length, seconds, bytes)
  local interval = math.floor(at / seconds)
  local latest = redis.call('BITFIELD', key, 'GET', 'i64', '#0')[1]
  local expires = (length + 1) * seconds
  if interval <= latest - length or interval >= latest + length then
    -- A new ring, an old one, or one that something else wrote. It never grows: a string that grows takes twice its size.
    redis.call('SET', key, string.rep('\0', 8 * (1 + length)), 'EX', expires)
    redis.call('BITFIELD', key, 'SET', 'i64', '#0', interval)
  elseif interval > latest then
    clear(key, length, latest + 1, interval - latest)
    redis.call('EXPIRE', key, expires)
    redis.call('BITFIELD', key, 'SET', 'i64', '#0', interval)
  end
  redis.call('BITFIELD', key, 'OVERFLOW', 'SAT', 'INCRBY', 'i64', '#' .. (1 + interval % length), bytes)
end

local full = {}
for i = 7, #ARGV, 2 do
  local minutes, hours = KEYS[i - 4], KEYS[i - 3]
  if redis.call('ZSCORE', KEYS[2], ARGV[i]) or redis.call('ZCARD', KEYS[2]) < tonumber(ARGV[4]) then
    redis.call('ZADD', KEYS[2], at, ARGV[i])
    add(minutes, tonumber(ARGV[5]), 60, ARGV[i + 1])
    add(hours, tonumber(ARGV[6]), 3600, ARGV[i + 1])
  else
    table.insert(full, ARGV[i])
  end
end
redis.call('EXPIRE', KEYS[2], (tonumber(ARGV[6]) + 1) * 3600)
return full
