"""Files in all the odd ways in which people, editors and generators write them. Each holds a model and runs it."""

# Each layout on one line, as one reads them.
# ruff: noqa: E501

from __future__ import annotations

BUILD = "import torch\nm = torch.nn.Conv2d(3, 8, 3)\n"
RUN = "y = m(x)\n"


def _around(middle: str, *, run: str = RUN) -> bytes:
    return f"{BUILD}{middle}{run}".encode()


def _in_file(text: str, encoding: str) -> bytes:
    return f"# coding: {encoding}\n{BUILD}y = m('{text}')\n".encode(encoding)


DEEP = {
    "a sum of many terms": _around("s = " + " + ".join(["'a'"] * 700) + "\n"),
    "a long chain of attributes": _around("s = a" + ".b" * 700 + "\n"),
    "a long chain of calls": _around("s = a" + ".b()" * 60 + "\n"),
    "a long chain of elif": _around(
        "if a == 0:\n    pass\n" + "".join(f"elif a == {i}:\n    s = {i}\n" for i in range(250))
    ),
    "many negations": _around("s = " + "not " * 300 + "a\n"),
    "nested lambdas": _around("s = " + "lambda: " * 90 + "a\n"),
    "nested parentheses": _around("s = " + "(" * 150 + "1" + ")" * 150 + "\n"),
    "nested blocks": _around("".join(" " * i + "if a:\n" for i in range(80)), run=" " * 80 + RUN),
    "nested functions": _around("".join(" " * i + f"def f{i}():\n" for i in range(15)), run=" " * 15 + RUN),
}
LONG = {
    "a long list": _around("s = [" + "1.5, " * 300 + "]\n"),
    "many lines": _around("s = [1, 2, 3]\n" * 60),
    "a long line of dots": _around("s = '" + "a." * 20_000 + "'\n"),
    "a long line": _around("s = '" + "a" * 20_000 + "'\n"),
}
LINES = {
    "carriage returns and newlines": _around("").replace(b"\n", b"\r\n"),
    "carriage returns alone": _around("").replace(b"\n", b"\r"),
    "all kinds of newlines": b"import torch\rm = torch.nn.Conv2d(3, 8, 3)\r\ny = m(x)\n",
    "no newline at the end": _around("").rstrip(),
    "a comment at the end without a newline": _around("") + b"# end",
    "form feeds between the lines": _around("\f\n\n\f\n"),
    "form feeds before statements": b"\f" + _around("").replace(b"\ny", b"\n\fy"),
    "a form feed in the indentation": _around("if a:\n    s = 1\n  \f    t = 1\n"),
    "vertical tabs and other breaks in strings": _around("s = 'a\x0b\x1c\x85\u2028b'\n"),
    "backslashes": b"import \\\n  torch\nm = \\\n  torch.nn.Conv2d(3, 8, 3)\ny \\\n= m(\\\nx)\n",
    "tabs": b"import torch\nif a:\n\tm = torch.nn.Conv2d(3, 8, 3)\n\tfor x in d:\n\t\ty = m(x)\n",
    "tabs and blanks": b"import torch\nif a:\n\tm = torch.nn.Conv2d(3, 8, 3)\n\tif b:\n\t    y = m(x)\n",
    "one blank": b"import torch\nif a:\n m = torch.nn.Conv2d(3, 8, 3)\n if b:\n  y = m(x)\n",
    "blanks behind lines": _around("").replace(b"\n", b"   \n"),
    "indented comments": _around("if a:\n    s = 1\n        # far right\n# far left\n    t = m(x)\n  # between\n"),
}
STATEMENTS = {
    "all on one line": b"import torch; m = torch.nn.Conv2d(3, 8, 3); y = m(x)\n",
    "a semicolon at the end": b"import torch;\nm = torch.nn.Conv2d(3, 8, 3);\ny = m(x);\n",
    "suites on the header's line": _around("if a: y = m(x); z = 1\nelse: y = m(z)\nfor i in a: y = m(i)\n"),
    "a class on one line": _around("class A: net = torch.nn.Conv2d(3, 8, 3); y = net(x)\n"),
    "a docstring and a statement on one line": b"'''Doc.'''; import torch; m = torch.nn.Conv2d(3, 8, 3)\ny = m(x)\n",
    "future imports": b"'''Doc.'''\nfrom __future__ import annotations; from __future__ import division\n"
    + _around(""),
    "no import at the top": b"def f(x):\n    import torch\n    m = torch.nn.Conv2d(3, 8, 3)\n    return m(x)\n",
    "an import that may fail": b"try:\n    import torch\nexcept ImportError:\n    torch = None\nm = torch.nn.Conv2d(3, 8, 3)\ny = m(x)\n",
    "an import for type checkers": b"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nfrom torch.nn import Conv2d\nm = Conv2d(3, 8, 3)\ny = m(x)\n",
    "the name torch taken": b"from torch.nn import Conv2d\nm = Conv2d(3, 8, 3)\ndef f(torch):\n    return m(torch)\ntorch = f(1)\n",
    "torch deleted": b"import torch\nm = torch.nn.Conv2d(3, 8, 3)\ndel torch\ny = m(x)\n",
    "torch in a comprehension": b"from torch.nn import Conv2d\nm = Conv2d(3, 8, 3)\ny = [m(torch) for torch in x]\n",
    "torch imported late": b"from torch.nn import Conv2d\nm = Conv2d(3, 8, 3)\ny = m(x)\nimport torch\n",
    "torch global": b"from torch.nn import Conv2d\nm = Conv2d(3, 8, 3)\ndef f(x):\n    global torch\n    import torch\n    return m(x)\n",
    "strings over lines": _around("y = m('''\n  a\n# no comment\n''', x)\nif a:\n    y = m(f'''\n{x}\n  b''')\n"),
    "a callee over lines": _around("y = torch.nn.Conv2d(\n    3, 8, 3\n)(x)\nz = (m\n     .forward(x))\n"),
    "a callee that is taken to a GPU": _around("y = m.cuda()(x)\nz = torch.nn.Conv2d(3, 8, 3, device='cuda')(x)\n"),
    "comments in calls": _around("y = m(  # one\n    # two\n    x,  # three\n)  # four\n"),
    "stars in calls": _around("y = m(*a, **b)\nz = m(\n    *a,\n    k=1,\n    **b,\n)\n"),
    "generators in calls": _around("y = m(x for x in d)\nz = m((x for x in d), 1)\n"),
    "match": _around(
        "match m(x):\n    case [1, *a] if m(a): y = m(x)\n    case {'k': v, **r}:\n        y = m(r)\n    case _: pass\n"
    ),
    "decorators": _around(
        "@torch.no_grad()\n@f(\n    1,\n)\ndef g(x):\n    return m(x)\n@ \\\n torch.no_grad()\nasync def h(x): return m(x)\n"
    ),
    "walrus": _around("if (y := m(x)) is not None and (z := m(y)): pass\nwhile y := m(x): pass\n"),
    "star imports": b"from torch import *\nfrom torch.nn import *\nm = Conv2d(3, 8, 3)\ny = m(x)\n",
    "try": _around("try: y = m(x)\nexcept A: y = m(z)\nelse: y = m(y)\nfinally: z = m(y)\n"),
    "try star": _around("try:\n    y = m(x)\nexcept* A:\n    y = m(z)\n"),
    "an else with an if": _around(
        "if a:\n    pass\nelse:\n    if b:\n        y = m(x)\n    elif m(c):\n        y = m(z)\n"
    ),
    "with over lines": _around(
        "with (\n    torch.no_grad(),\n    open(a) as f,\n):\n    y = m(x)\nwith torch.no_grad(), open(b): z = m(x)\n"
    ),
    "yields": _around(
        "def g():\n    with torch.no_grad():\n        y = yield m(x)\n    yield from m(y)\nasync def h():\n    async with a: await m(x)\n"
    ),
    "async for": _around(
        "async def h():\n    async for x in a:\n        y = m(x)\n        z = [m(i) async for i in b]\n"
    ),
    "class scopes": _around("class A:\n    torch = 1\n    y = m(x)\n    def f(self):\n        return m(self)\n"),
    "private names": _around(
        "class A:\n    def __init__(self):\n        self.__m = torch.nn.Conv2d(3, 8, 3)\n    def f(self, x):\n        return self.__m(x)\n"
    ),
    "identifiers that Python folds": "import torch\nmódel = torch.nn.Conv2d(3, 8, 3)\nﬁle = módel(x)\nfile = módel(ﬁle)\n".encode(),
    "characters of several bytes": _around("y = m('é', '中文'); é = m('🙂', y)  # ✓\n"),
    "odd escapes": _around("y = m('\\d\\w', b'\\q')\nz = 1 if y is 1 else 2\nassert (y, 'text')\n"),
    "odd escapes for a GPU": _around(
        "with torch.cuda.amp.autocast(enabled=f('\\d')):\n    y = m(f('\\d',\n 'b')).cuda('\\d')\n"
    ),
    "odd escapes in an annotation": _around("def f(a: '\\d', b: '\\0'): return m(a)\n"),
    "lone surrogates": _around("s = '\\ud800'\n"),
    "f-strings in f-strings": _around("y = f'{m(x):{m(w)}} {f\"{m(z)}\"}'\n"),
    "type comments": _around("y = m(x)  # type: ignore[call]\nz = []  # type: List[int]\n"),
    "a statement that takes its model to a GPU": _around("m.train().cuda()\nm.cuda(); m.to('cuda')\n"),
    "a loss that is scaled for a GPU": _around(
        "o = torch.optim.SGD(m.parameters(), lr=0.1)\ns = torch.cuda.amp.GradScaler()\nl = m(x).sum()\ns.scale(l).backward()\ns.step(o)\n"
    ),
    "a call for GPUs alone in its block": _around(
        "if a:\n    torch.cuda.set_device(  # the first\n        # of all\n        0\n    )\nif a: torch.cuda.empty_cache()  # all\n"
    ),
    "several models": _around("a, b = torch.nn.Linear(1, 2), torch.nn.Conv2d(1, 2, 3)\na = b = m\ny = a(b(m(x)))\n"),
    "a model in an f-string": _around("print(f'{m(x)}', f'''\n{m(x)!r:>10}\n''')\n"),
    "type parameters and soft keywords": _around("match = type = case = m(x)\n_ = m(match)\nprint(type, case)\n"),
}
ENCODINGS = {
    "a mark of the byte order": b"\xef\xbb\xbf" + _around(""),
    "a mark and form feeds": b"\xef\xbb\xbf\f\f" + _around(""),
    "Latin-1": _in_file("é", "latin-1"),
    "Shift JIS": _in_file("ソ", "shift_jis"),
    "ISO 2022": _in_file("ソ", "iso2022_jp"),
    "EUC": _in_file("한", "euc_kr"),
    "KOI8": _in_file("ж", "koi8-r"),
    "EBCDIC names itself in vain": b"#!/usr/bin/env python\n# -*- coding: ascii -*-\n" + _around(""),
}
EMPTY = {
    "nothing": b"",
    "a comment": b"# torch\n",
    "comments alone": b"# torch\n\n#!\n\f# end",
    "blank lines": b"\n\n   \n\t\n",
    "a docstring": b'"""torch"""',
}
UNREADABLE = {
    "a NUL byte": b"import torch\nx = 1\0\n",
    "no text": bytes(range(256)),
    "bytes that are no UTF-8": b"import torch\nx = '\xff'\n",
    "an encoding that nobody knows": b"# coding: nonsense\nimport torch\n",
    "an encoding for nothing": b"# coding: undefined\nimport torch\n",
    "an encoding that is none": b"# coding: rot13\nimport torch\n",
    "UTF-7": b"# coding: utf-7\nimport torch\nx = '+AOk-'\n",
    "UTF-16 in name only": b"# coding: utf-16\nimport torch\n",
    "escapes as an encoding": b"# coding: unicode_escape\nimport torch\nx = '\\xe9'\n",
}
NO_PYTHON = {
    "a print statement": b"import torch\nprint 'a'\n",
    "an exec statement": b"import torch\nexec 'a' in b\n",
    "an old raise": b"import torch\nraise A, 'b'\n",
    "an old number": b"import torch\nx = 0777L\n",
    "backticks": b"import torch\nx = `a`\n",
    "a backslash at the end": _around("") + b"\\",
    "an odd control character": _around("") + b"\x1a",
    "tabs that mean nothing": b"import torch\nif a:\n\tx = 1\n        y = 1\n",
    "half a statement": b"import torch\nx = (1,\n",
    "a merge conflict": b"import torch\n<<<<<<< ours\nx = 1\n=======\nx = 2\n>>>>>>> theirs\n",
    "a number of too many digits": b"import torch\nx = " + b"9" * 5000 + b"\n",
    "a sum of too many terms": _around("s = " + " + ".join(["a"] * 5000) + "\n"),
    "too many parentheses": b"import torch\nx = " + b"(" * 300 + b")" * 300 + b"\n",
}
PYTHON = {**LONG, **LINES, **STATEMENTS, **ENCODINGS, **EMPTY}
