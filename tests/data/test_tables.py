"""Tables of every dialect give the text of each row whole, or a sentence names the row."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from gpt2.data.readers import ReaderSettings, read_pieces
from gpt2.errors import UserError


def read(path: Path, content: str, notices: list[str] | None = None, **reading: object) -> list:
    """The documents of a file with that content."""
    path.write_text(content, encoding="utf-8", newline="")
    notice = [].append if notices is None else notices.append
    pieces = list(read_pieces(path, ReaderSettings(**reading), notice=notice))
    assert all(piece.ends for piece in pieces)
    return [piece.text for piece in pieces]


@pytest.mark.parametrize(
    ("delimiter", "told"),
    [(",", None), (";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")],
)
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_the_delimiter_is_detected_and_told(
    tmp_path: Path, delimiter: str, told: str | None, ending: str
) -> None:
    rows = ["id{}text", '1{}"A; b, c | d\te"', "2{}1.5", '3{}"two\nlines"', "4{}"]
    content = "\n".join(row.format(delimiter) for row in rows)
    notices: list[str] = []
    expected = ["A; b, c | d\te", "1.5", "two\nlines", ""]
    assert read(tmp_path / f"a.{ending}", content, notices) == expected
    [notice] = notices
    own = {"csv": ",", "tsv": "\t"}[ending]
    assert ("separated by" in notice) == (delimiter != own)
    if delimiter != own:
        assert f"{told or 'commas'}" in notice


@pytest.mark.parametrize("header", ["text,text", "text,id,text", "a,b,a", "id,id"])
def test_a_column_whose_name_occurs_twice_is_an_error_and_not_the_first(
    tmp_path: Path, header: str
) -> None:
    name = "text" if "text" in header else header.split(",")[0]
    content = "\n".join(
        [header, *(",".join(row[: header.count(",") + 1]) for row in ("xyz", "uvw"))]
    )
    with pytest.raises(UserError, match=f"2 columns have the name '{name}'"):
        read(tmp_path / "a.csv", content, column=None if name == "text" else name)
    with pytest.raises(UserError, match="2 columns have the name"):
        read(tmp_path / "a.csv", content, template=f"{{{name}}}!")
    assert read(tmp_path / "b.csv", "a,a,text\nx,y,z\n") == ["z"]  # others may be alike


def test_tables_without_a_header_are_detected_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert read(path, "1;Hallo;1,5\n2;Welt;2,5\n", column="2") == ["Hallo", "Welt"]
    assert read(path, "7;Das, was ist.\n8;Ja, ja, ja.\n9;Nein.\n", column="2") == [
        "Das, was ist.",
        "Ja, ja, ja.",
        "Nein.",
    ]
    assert read(path, "1,a;b\n2,c;d\n", column="2") == ["a;b", "c;d"]  # commas, as the name says
    assert read(path, "id; text\n1; one\n", column="2") == [" one"]


@pytest.mark.parametrize("separator", [",", ";", "|", "\t", "~"])
@pytest.mark.parametrize("line", ["sep={}", "SEP={}", '"sep={}"'])
def test_excels_first_line_tells_the_delimiter(tmp_path: Path, separator: str, line: str) -> None:
    table = f"{line}\r\nid{{}}text\r\n1{{}}one\r\n2{{}}two\r\n"
    content = "\ufeff" + table.replace("{}", separator)
    assert read(tmp_path / "a.csv", content) == ["one", "two"]
    with pytest.raises(UserError, match=r"a\.csv line 4: "):
        read(tmp_path / "a.csv", content.replace("two", separator))


def test_the_delimiter_may_be_given(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert read(path, "id~text\n1~one, two\n", delimiter="~") == ["one, two"]
    assert read(path, "id\ttext\n1\tone\n", delimiter="tab") == ["one"]
    assert read(path, "id;text\n1;one\n", delimiter=",", header="yes") == ["1;one"]
    for wrong in ("", ",,", '"', "\n", "semicolon"):
        with pytest.raises(UserError, match="delimiter must be auto, tab or"):
            ReaderSettings(delimiter=wrong)
    with pytest.raises(UserError, match="quoting must be one of auto, none, not 'all'"):
        ReaderSettings(quoting="all")


@pytest.mark.parametrize(
    "content",
    [
        "text\nCome, come.\nAh, oh, no.\nYes.\n",
        "Come, come.\nAh, oh, no.\nYes.\n",
        "Yes, please\nAh, oh, no.\nYes.\n",
        "text\nNo comma.\nOne,here\n",
        "text\nA; b\nC\nD; e; f\n",
        "text\ncaf&eacute;s\n&lt;b&gt;\nplain\n",
        'text\n"Come," he said.\nAnd "so", too, did he.\nYes, yes.\n',
        'text\nHe said "no"\nand, then, "yes"\n',
    ],
)
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_single_column_is_kept_whole(tmp_path: Path, content: str, ending: str) -> None:
    lines = content.splitlines()
    expected = lines[1:] if lines[0] == "text" else lines
    assert read(tmp_path / f"a.{ending}", content) == expected


def test_a_single_column_may_be_quoted(tmp_path: Path) -> None:
    content = 'text\n"Come, ""come""."\nplain\n"two\nlines, or so"\n'
    expected = ['Come, "come".', "plain", "two\nlines, or so"]
    assert read(tmp_path / "a.csv", content) == expected


def test_a_comma_far_behind_the_first_rows_loses_nothing(tmp_path: Path) -> None:
    lines = ["no comma in here"] * 20_000 + ["but, here, some"]
    assert read(tmp_path / "a.csv", "text\n" + "\n".join(lines)) == lines
    with pytest.raises(UserError, match=r"a\.csv line 20001: .*is 4; expected 2 .*--delimiter"):
        read(
            tmp_path / "a.csv",
            "n,text\n" + "\n".join(f"1,{line}" for line in lines[1:] + lines[-1:]),
        )


@pytest.mark.parametrize("row", ["3", "3,a,b", "3,a,", "3,Come, come."])
def test_a_row_with_another_number_of_cells_is_an_error_with_its_line(
    tmp_path: Path, row: str
) -> None:
    cells = row.count(",") + 1
    sentence = rf"a\.csv line 5: .*is {cells}; expected 2"
    with pytest.raises(UserError, match=sentence):
        read(tmp_path / "a.csv", f'n,text\n1,"a\nb"\n2,c\n{row}\n4,d\n')
    with pytest.raises(UserError, match=sentence):  # without a header, too
        read(tmp_path / "a.csv", f'0,text\n1,"a\nb"\n2,c\n{row}\n4,d\n', column="2")


def test_quotes_may_be_ordinary_characters(tmp_path: Path) -> None:
    content = 'n\ttext\n1\t"Hello\n2\tthere"\n3\tsays "he"\n4\t"\n'
    expected = ['"Hello', 'there"', 'says "he"', '"']
    assert read(tmp_path / "a.tsv", content, quoting="none") == expected
    assert read(tmp_path / "a.csv", content, quoting="none") == expected


@pytest.mark.parametrize(
    "content",
    [
        'n\ttext\n1\tone\n2\t"Hello\n3\tthere"\n',  # would be one row of two
        'n\ttext\n1\tone\n2\t"Hello\n3\tthere\n4\tyes\n5\tno"\n6\tx\n',
        'n\ttext\n1\tone\n2\t"Hello\n3\tthere\n',  # never closed
        'n\ttext\n1\tone\n2\t"Hello" he said\n',
        'text\none\n"Hello\nthere\n',
    ],
)
def test_quotes_that_do_not_balance_are_told_with_their_line(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"a\.tsv line 3: .*--quoting none"):
        read(tmp_path / "a.tsv", content)


def test_merged_rows_are_told_among_commas_too(tmp_path: Path) -> None:
    rows = [f"{number},words" for number in range(2, 30)]
    content = "\n".join(["n,text", '1,"Hello', *rows, '30,there"', "31,end"])
    with pytest.raises(UserError, match=r"a\.csv line 2: .* to line 31.*--quoting none"):
        read(tmp_path / "a.csv", content)
    # Two lines of a poem may have as many commas as the row has.
    assert read(tmp_path / "a.csv", 'n,text\n1,"It falls\nand falls, again"\n') == [
        "It falls\nand falls, again"
    ]


def test_a_cell_may_have_thousands_of_lines(tmp_path: Path) -> None:
    play = "\n".join(f"Line {number}, of a play." for number in range(5000))
    assert read(tmp_path / "a.csv", f'title,text\nA,"{play}"\nB,b\n') == [play, "b"]
    assert read(tmp_path / "a.csv", f'text\n"{play}"\nb\n') == [play, "b"]


def test_only_newlines_end_a_row(tmp_path: Path) -> None:
    text = "a\u2028b\x85c\x0cd\x0be\x1cf\u2029g"
    assert read(tmp_path / "a.csv", f"n,text\n1,{text}\n2,x\r3,y\r\n") == [text, "x", "y"]
    assert read(tmp_path / "a.csv", f"text\n{text}\n") == [text]


PARTS = ["word", " ", ", ", ",", ";", '"', "\n", "|", "ä", "\t", "1,5"]


def test_whatever_the_csv_module_writes_is_read_again(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    for trial in range(200):
        delimiter = generator.choice(",;\t|")
        # Cells over several lines with the delimiter in each may be taken for merged rows.
        parts = PARTS if delimiter == "," else [part for part in PARTS if part != "\n"]
        rows = [
            [str(number), "".join(generator.choices(parts, k=generator.randrange(8)))]
            for number in range(generator.randrange(1, 30))
        ]
        path = tmp_path / f"{trial}.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([["id", "text"], *rows])
        found = [piece.text for piece in read_pieces(path, ReaderSettings())]
        assert found == [text for _, text in rows]


def test_a_line_that_turns_quoting_off_is_named(tmp_path: Path) -> None:
    rows = ['"one, two"', '"three\nfour"', '"five" six', '"seven"']
    content = "\n".join(["text", *rows]) + "\n"
    notices: list[str] = []
    read(tmp_path / "a.csv", content, notices)
    told = [notice for notice in notices if "quotes" in notice]
    assert len(told) == 1 and "a.csv line 5: " in told[0] and "--quoting none" in told[0]
    for quoting, lines in (("none", content), ("auto", content.replace('" six', '"'))):
        notices.clear()
        read(tmp_path / "a.csv", lines, notices, quoting=quoting)
        assert not any("quotes" in notice for notice in notices)
