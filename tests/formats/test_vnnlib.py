"""VNN-LIB: what is asserted becomes a property, and a property the same assertions."""

import gzip
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glsk.errors import DataError
from glsk.formats import format_counterexample, format_vnnlib, parse_vnnlib, read_vnnlib
from glsk.verify.property import Property

DECLARED = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1", "Y_2"))
BOX = "(assert (>= X_0 -1)) (assert (<= X_0 2)) (assert (>= X_1 0.25)) (assert (<= X_1 1e-1))".replace("1e-1", "5e-1")
UNSAFE = "(assert (<= Y_0 Y_1))"


def one(text: str) -> Property:
    (found,) = parse_vnnlib(DECLARED + text)
    return found


def sets(found: Property) -> list[tuple[list[list[float]], list[float]]]:
    return [(pair.A.tolist(), pair.b.tolist()) for pair in found.unsafe]


def test_a_box_and_a_comparison_of_outputs():
    found = one(f"; a comment\n{BOX}{UNSAFE}")
    assert [end.tolist() for end in found.boxes[0]] == [[-1.0, 0.25], [2.0, 0.5]]
    assert found.boxes[0].lower.dtype == torch.float64
    assert sets(found) == [([[1.0, -1.0, 0.0]], [0.0])]


def test_what_is_asserted_on_its_own_holds_together():
    found = one(f"{BOX}{UNSAFE}(assert (>= Y_2 3.5))")
    assert sorted(map(str, zip(*sets(found)[0], strict=True))) == [
        "([0.0, 0.0, -1.0], -3.5)",
        "([1.0, -1.0, 0.0], 0.0)",
    ]


def test_a_disjunction_is_a_set_each():
    found = one(f"{BOX}(assert (or (and (<= Y_0 Y_1) (<= Y_0 Y_2)) (>= Y_2 1)))")
    assert [len(A) for A, _ in sets(found)] == [2, 1]


def test_boxes_that_share_their_sets_are_one_property():
    found = one(
        "(assert (or (and (<= X_0 0) (>= X_0 0) (= X_1 1)) (and (<= 2 X_0 3) (<= X_1 7) (>= X_1 6))))"
        "(assert (or (<= Y_0 0) (<= Y_1 0)))"
    )
    assert [[end.tolist() for end in box] for box in found.boxes] == [
        [[0.0, 1.0], [0.0, 1.0]],
        [[2.0, 6.0], [3.0, 7.0]],
    ]
    assert len(found.unsafe) == 2


def test_boxes_with_sets_of_their_own_are_properties_of_their_own():
    first = "(and (>= X_0 0) (<= X_0 1) (= X_1 0) (<= Y_0 5))"
    second = "(and (>= X_0 2) (<= X_0 3) (= X_1 0) (<= Y_1 5))"
    a, b = parse_vnnlib(f"{DECLARED}(assert (or {first} {second}))")
    assert [p.boxes[0].lower[0].item() for p in (a, b)] == [0.0, 2.0]
    assert [p.unsafe[0].A.tolist() for p in (a, b)] == [[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]


def test_linear_terms():
    text = "(assert (<= (+ (* 2 Y_0) (- Y_1) (* Y_2 (/ 1 4)) 3) (- 10 (- Y_0 (* 0.5 Y_1)))))"
    assert sets(one(BOX + text)) == [([[3.0, -1.5, 0.25]], [7.0])]


def test_an_input_may_be_scaled():
    found = one("(assert (<= (* -2 X_0) 6)) (assert (<= (+ X_0 1) 5)) (assert (= X_1 0))" + UNSAFE)
    assert [end.tolist() for end in found.boxes[0]] == [[-3.0, 0.0], [4.0, 0.0]]


DECIMALS = st.decimals(-1000, 1000, allow_nan=False, places=20)


@given(st.tuples(DECIMALS, DECIMALS).map(sorted), DECIMALS)
def test_what_float64_has_not_is_rounded_outward(ends, b):
    """By less than a step of float64, so that no real input and no unsafe output is left out."""
    texts = [format(value, "f") for value in (*ends, b)]
    found = one(f"(assert (<= {texts[0]} X_0 {texts[1]})) (assert (= X_1 0.5)) (assert (<= Y_0 {texts[2]}))")
    low, high = (end[0].item() for end in found.boxes[0])
    assert low <= Fraction(texts[0]) < math.nextafter(low, math.inf)
    assert math.nextafter(high, -math.inf) < Fraction(texts[1]) <= high
    ((_, (end,)),) = sets(found)
    assert math.nextafter(end, -math.inf) < Fraction(texts[2]) <= end


def test_coefficients_that_float64_has_not_become_whole_numbers():
    text = "(assert (<= (+ (* 0.1 Y_0) (/ Y_1 3)) (* 0.7 Y_2)))"
    assert sets(one(BOX + text)) == [([[3.0, 10.0, -21.0]], [0.0])]
    assert sets(one(BOX + "(assert (<= (* 0.1 Y_0) 0.3))")) == [([[1.0, 0.0, 0.0]], [3.0])]
    # More than 53 bits: the nearest.
    assert sets(one(BOX + "(assert (<= (* 0.12345678901234567 Y_0) 1))")) == [
        ([[0.12345678901234567, 0.0, 0.0]], [1.0])
    ]


def test_a_box_that_no_input_meets_is_no_property():
    assert parse_vnnlib(f"{DECLARED}{BOX}(assert (<= X_0 -2)){UNSAFE}") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(assert (< Y_0 Y_1))", "t:1: '<' is not understood"),
        ("\n(assert (<= Y_0 Y_9))", "t:2: Y_9 is not declared"),
        ("(assert (<= (* Y_0 Y_1) 2))", "not linear"),
        ("(assert (<= (/ 2 Y_0) 2))", "not linear"),
        ("(assert (<= (/ Y_0 0) 2))", "not linear"),
        ("(assert (<= X_0 Y_1))", "inputs to outputs"),
        ("(assert (<= X_0 X_1))", "several inputs"),
        ("(assert (<= 1 2))", "numbers alone"),
        ("(assert (<= Y_0 1e999))", "beyond float64"),
        ("(assert (<= Y_0 1e-99999999))", "beyond float64"),
        ("(assert (<= X_0 1e309))", "beyond float64"),
        ("(assert (<= Y_0 nan))", "'nan'"),
        ("(assert (<= Y_0 0x1))", "'0x1'"),
        ("(assert (not (<= Y_0 1)))", "'not' is not understood"),
        ("(assert (or))", "'or' is not understood"),
        ("(assert (and Y_0))", "got 'Y_0'"),
        ("(assert (<= Y_0))", "compares 1 terms"),
        ("(assert (<= Y_0 1)", "t:1: '\\(' is never closed"),
        ("(assert (<= Y_0 1)))", "closes nothing"),
        ("Y_0", "outside every form"),
        ('(set-info "x")', "strings"),
        ("(declare-const X_0 Real)", "declared twice"),
        ("(declare-const X_3 Real)", "X_2 is not declared"),
        ("(declare-const Z Real)", "'Z'"),
        ("(declare-const Y_3 Int)", "'declare-const' is not understood"),
        ("(minimize Y_0)", "'minimize' is not understood"),
        ("(" * 300, "nested more than"),
        ("(assert " + "(and " * 199 + ")" * 200, "'and' is not understood"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(text, message):
    with pytest.raises(DataError, match=message):
        parse_vnnlib(DECLARED.replace("\n", " ") + BOX + text, "t")


def test_what_leaves_inputs_or_outputs_open_is_refused():
    with pytest.raises(DataError, match="X_0 has no lower bound"):
        parse_vnnlib(f"{DECLARED}(assert (<= X_0 1)){UNSAFE}")
    with pytest.raises(DataError, match="X_1 has no upper bound"):
        parse_vnnlib(f"{DECLARED}{BOX.replace('(assert (<= X_1 5e-1))', '')}{UNSAFE}")
    with pytest.raises(DataError, match="nothing is asserted of the outputs"):
        parse_vnnlib(DECLARED + BOX)
    with pytest.raises(DataError, match="Y_0 is not declared"):
        parse_vnnlib("(declare-const X_0 Real)")


def test_more_cases_than_can_be_told_apart_are_refused():
    choice = "(assert (or (<= Y_0 0) (<= Y_1 0)))"
    with pytest.raises(DataError, match="more than 20000 cases"):
        parse_vnnlib(DECLARED + BOX + choice * 20)


def test_a_file_may_be_compressed_and_must_be_text(tmp_path):
    path = tmp_path / "p.vnnlib.gz"
    path.write_bytes(gzip.compress((DECLARED + BOX + UNSAFE).encode()))
    assert sets(read_vnnlib(path)[0]) == sets(one(BOX + UNSAFE))
    for content in (gzip.compress(b"\xff"), b"text", path.read_bytes()[:30]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"p\.vnnlib\.gz: not a VNN-LIB file"):
            read_vnnlib(path)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def properties(draw):
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pair = st.lists(st.tuples(NUMBERS, NUMBERS).map(sorted), min_size=inputs, max_size=inputs)
    row = st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.3]), min_size=outputs, max_size=outputs).filter(any)
    boxes = [torch.tensor(ends, dtype=torch.float64).T for ends in draw(st.lists(pair, min_size=1, max_size=2))]
    sets = draw(st.lists(st.lists(st.tuples(row, NUMBERS), min_size=1, max_size=2), min_size=1, max_size=2))
    halfspaces = [
        (torch.tensor([r for r, _ in s]).double(), torch.tensor([b for _, b in s], dtype=torch.float64)) for s in sets
    ]
    return Property(tuple(boxes), tuple(halfspaces))


def cases(found):
    """What a set of properties says, in no order."""
    return {
        (*map(tuple, map(torch.Tensor.tolist, box)), frozenset(zip(map(tuple, A.tolist()), b.tolist(), strict=True)))
        for p in found
        for box in p.boxes
        for A, b in p.unsafe
    }


@given(st.lists(properties(), min_size=1, max_size=2))
def test_what_is_written_reads_back_the_same(found):
    same = [p for p in found if (p.input_shape, p.num_outputs) == (found[0].input_shape, found[0].num_outputs)]
    text = format_vnnlib(same, "one\ntwo")
    assert text.startswith("; one\n; two\n")
    assert "e" not in text.replace("declare", "").replace("Real", "").replace("assert", "").replace("one", "")
    assert cases(parse_vnnlib(text)) == cases(same)


def test_properties_of_different_sizes_make_no_file():
    a, b = one(BOX + UNSAFE), Property(((torch.zeros(3), torch.ones(3)),), ((torch.ones(1, 3), torch.ones(1)),))
    with pytest.raises(ValueError, match="same size"):
        format_vnnlib([a, b])


def test_a_counterexample_is_a_variable_a_line():
    text = format_counterexample(torch.tensor([[0.5], [1e-8]]), torch.tensor([-1.0]))
    assert text == "((X_0 0.5)\n(X_1 0.00000000999999993922529)\n(Y_0 -1.0))"
