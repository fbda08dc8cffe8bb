"""What is said of components that break rules or mix rows: each thing once, and as certain as it is."""

from converter.passes.batching.checks import Findings, check_components
from tests.harness import parse_model
from tests.passes.batching.models import argument, component

MEAN = """a = Const() {dtype: int32, value: int32(0)}
  m = Mean(x, a:output:0) {T: float32, Tidx: int32, keep_dims: true}
  s = Sub(x, m:output:0) {T: float32}"""
UNIQUE = "u = Unique(v) {T: float32, out_idx: int32}"
NEG = "n = Neg(x) {T: float32}"


def function(name: str, arguments: str, body: str, results: str, *types: str) -> str:
    outputs = ", ".join(f"r{i}: {t}" for i, t in enumerate(types or ("float32",)))
    return f"@{name}({arguments}) -> ({outputs}) {{ {body}; return {results} }}\n"


def checked(text: str, *named: tuple[str, str]) -> Findings:
    """Of components, each by its name and its function."""
    model = parse_model(text)
    return check_components(model, [(name, component(model, 8, (4, 8), f)) for name, f in named])


def starts(messages: list[str], *expected: str) -> bool:
    return len(messages) == len(expected) and all(m.startswith(e) for m, e in zip(messages, expected, strict=True))


def test_rows_are_not_followed_where_a_rule_is_certainly_broken() -> None:
    text = function("f", f"{argument('x', '?,3')}, {argument('k', '')}", MEAN, "s:z:0")
    found = checked(text, ("mine", "f"))
    assert starts(found.certain, 'Batching "mine" (f): Input "k" of shape [] is a scalar that belongs to the request')
    assert (found.possible, found.unclear) == ([], {})


def test_rows_are_followed_where_a_rule_may_be_broken() -> None:
    found = checked(function("f", argument("x", "?,?"), MEAN, "s:z:0"), ("mine", "f"))
    assert starts(found.certain, 'Batching "mine" (f): Output "r0" mixes the rows of a batch: "m" (Mean) in f')
    assert starts(found.possible, 'Batching "mine" (f): Input "x" of shape [None, None] may have other sizes')


def test_the_first_result_that_cannot_be_followed_is_why_there_is_no_telling() -> None:
    text = function("f", argument("v", "?"), UNIQUE, "u:y:0, u:idx:0, u:y:0", "float32", "int32", "float32")
    found = checked(text, ("mine", "f"))
    unknown = '"u" (Unique) in f is an op whose rows the converter cannot follow'
    assert found == Findings(unclear={"mine": f'output "r0": {unknown}'})
    # In a batch of one row there is nothing to follow, and its size is not known all the same.
    model = parse_model(text)
    alone = check_components(model, [("mine", component(model, 1, (1,)))])
    assert alone == Findings(unclear={"mine": 'Output "r0" has a 0th dimension that cannot be proved to be the batch'})


def test_what_mixes_rows_is_not_unclear_besides() -> None:
    arguments = f"{argument('x', '?,3')}, {argument('v', '?')}"
    text = function("f", arguments, f"{MEAN}; {UNIQUE}", "u:y:0, s:z:0", "float32", "float32")
    found = checked(text, ("mine", "f"))
    assert starts(found.certain, 'Batching "mine" (f): Output "r1" mixes the rows')
    assert (found.possible, found.unclear) == ([], {}), "the other result is told when rows are no longer mixed"


def test_a_function_is_checked_once_by_its_first_name() -> None:
    found = checked(function("f", argument("x", "?,?"), NEG, "n:y:0"), ("first", "f"), ("second", "f"))
    assert starts(found.possible, 'Batching "first" (f): Input "x" of shape [None, None] may have other sizes')


def test_a_rule_that_components_break_alike_is_told_once_of_all() -> None:
    text = "".join(function(f, argument("x", "?,?"), NEG, "n:y:0") for f in ("f", "g", "h"))
    found = checked(text, ("one", "f"), ("two", "g"), ("three", "h"))
    assert starts(
        found.possible,
        'Batching "one" (f), "two" (g) and "three" (h): Input "x" of shape [None, None] may have other sizes where',
    )


def test_other_ways_to_break_a_rule_are_told_apart() -> None:
    text = function("f", f"{argument('x', '9,3')}, {argument('z', '10,3')}", NEG, "n:y:0")
    assert starts(
        checked(text, ("mine", "f")).certain,
        'Batching "mine" (f): Input "x" of shape [9, 3] has 9 rows always, more than max_batch_size: 8, which breaks '
        "requirement 3",
        'Batching "mine" (f): Input "z" of shape [10, 3] has 10 rows always, more than max_batch_size: 8, which',
        'Batching "mine" (f): Input "z" of shape [10, 3] has 10 rows always, while input "x" has 9, which',
    )


def test_what_fails_and_what_may_fail_stand_apart() -> None:
    text = function("f", f"{argument('x', '?,?')}, {argument('z', '?,?')}, {argument('k', '')}", NEG, "n:y:0")
    found = checked(text, ("mine", "f"))
    assert starts(found.certain, 'Batching "mine" (f): Input "k" of shape [] is a scalar')
    assert starts(
        found.possible, 'Batching "mine" (f): Input "x" of shape [None, None]; Input "z" of shape [None, None] may have'
    )


def test_a_result_of_wrong_size_is_certain() -> None:
    total = "a = Const() {dtype: int32, value: int32([0])}; s = Sum(x, a:output:0) {T: float32, Tidx: int32}"
    found = checked(function("f", argument("x", "?,3"), total, "s:output:0"), ("mine", "f"))
    assert starts(found.certain, 'Batching "mine" (f): Output "r0" of shape [3] has 3 rows in a batch of 4, which')
    assert (found.possible, found.unclear) == ([], {})


def test_a_result_whose_rows_are_followed_is_clear_though_its_size_is_not_inferred() -> None:
    """Of a width that requests decide, inference cannot tell that rows of eight are as many as there were."""
    body = "w = Const() {dtype: int32, value: int32([-1, 8])}; r = Reshape(x, w:output:0) {T: float32, Tshape: int32}"
    found = checked(function("f", argument("x", "?,?"), body, "r:output:0"), ("mine", "f"))
    assert starts(found.possible, 'Batching "mine" (f): Input "x" of shape [None, None] may have other sizes')
    assert (found.certain, found.unclear) == ([], {})
