-- Format 3: intervals of figures are over independent units, and figures say how many they have.

-- Intervals so far are over items, too narrow where items share images: they go. The figures stay; probing again makes
-- their intervals, from the predictions that are there.
alter table score add column if not exists units integer;
update score set low = null, high = null;
