from kvstore.contracts import Note
from kvstore.notes import Notes


def test_notes_of_one_kind_are_counted_and_the_first_place_stays():
    notes = Notes([Note("null captions", "a.json, annotation 3")])
    notes.add("null captions", "a.json, annotation 9", count=4)
    notes.add("flat polygons", "a.json, annotation 5", lost=False)
    assert list(notes) == [
        Note("null captions", "a.json, annotation 3", 5),
        Note("flat polygons", "a.json, annotation 5", 1, lost=False),
    ]


def test_the_same_kind_lost_and_not_lost_are_two():
    notes = Notes([Note("masks", "x", lost=True), Note("masks", "y", lost=False)])
    assert [(note.place, note.lost) for note in notes] == [("x", True), ("y", False)]
