-- Defines: number(text, otherwise), the number that a text is, *otherwise* if it is none that can be right: another
-- program may have written it.

local function number(text, otherwise)
  local found = tonumber(text or '')
  -- Not a number differs from itself.
  if found and found == found and math.abs(found) <= 9007199254740991 then return found end
  return otherwise
end
