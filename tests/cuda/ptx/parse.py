"""The text of a kernel's PTX, taken apart: parameters, registers and statements."""

import re
from typing import NamedTuple


class Unsupported(Exception):
    """PTX that this emulator does not know."""


class Statement(NamedTuple):
    """An instruction, or with `label` a place to jump to."""

    line: int
    label: str | None
    guard: str | None  # a predicate register, with ! where it must not hold
    opcode: tuple  # ("ld", "global", "f32")
    operands: tuple


class Program(NamedTuple):
    """A kernel."""

    entry: str
    params: list  # PTX types
    threads: int  # of a block at most
    symbols: dict  # name -> address in shared memory
    registers: dict  # name -> PTX type
    statements: list


_HEAD = re.compile(r"\.(version|target|address_size|visible|global|common)\b")
_LABEL = re.compile(r"\s*([\w$]+):(?!:)")


def _without_comments(ptx):
    text = re.sub(r"/\*.*?\*/", lambda found: "\n" * found[0].count("\n"), ptx, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def _head(text):
    """The entry's name, its parameters, its most threads and the symbols before it."""
    found = re.search(r"\.entry\s+([\w$]+)\s*\((.*?)\)(.*)", text, re.S)
    if found is None or text.count(".entry") != 1 or ".func" in text:
        raise Unsupported("not one kernel without calls")
    symbols = {}
    for line in text[: found.start()].splitlines():
        shared = re.match(r"\s*\.extern \.shared \.align \d+ \.b8 ([\w$]+)\[\]", line)
        if shared:
            symbols[shared[1]] = 0
        elif line.strip() and not _HEAD.match(line.strip()):
            raise Unsupported(f"before the kernel: {line.strip()[:100]}")
    params = re.findall(r"\.param\s+\.(\w+)\s+[\w$]+", found[2])
    if len(params) != found[2].count(".param"):
        raise Unsupported("a parameter that is no number")
    most = re.search(r"\.maxntid\s+(\d+)", found[3])
    return found[1], params, int(most[1]) if most else 1024, symbols


def split(text):
    """Operands, which commas part, but not those within brackets."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "{[(") - (letter in "}])")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return tuple(part.strip() for part in found if part.strip())


def _pieces(body):
    """Yield (line, text) of each label, declaration and instruction, without its semicolon."""
    line, text = 1, ""
    vector = 0  # within the braces of a vector operand
    for letter in body:
        if letter == "\n":
            line += 1
        opens = letter == "{" and text.strip() and not vector
        if letter in "{}" and not (opens or vector):
            if text.strip():
                raise Unsupported(f"{text.strip()} before a brace")
            continue  # a scope of inline code
        vector += (letter == "{") - (letter == "}")
        if letter != ";" or vector:
            text += letter
            label = _LABEL.fullmatch(text) if letter == ":" else None
            if label:
                yield line, text.strip()
                text = ""
            continue
        yield line, " ".join(text.split())
        text = ""
    if text.strip():
        raise Unsupported(f"at the end: {text.strip()[:100]}")


def _declared(registers, text):
    """Enter the registers of a declaration."""
    kind, names = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text).groups()
    for name in split(names):
        many = re.fullmatch(r"(%[\w$]+)<(\d+)>", name)
        for one in [f"{many[1]}{k}" for k in range(int(many[2]))] if many else [name]:
            if registers.setdefault(one, kind) != kind:
                raise Unsupported(f"{one} is declared twice")


def parse(ptx):
    """Take the PTX of one kernel apart. Raises Unsupported."""
    text = _without_comments(ptx)
    start = text.index("{", text.index(".entry"))
    before = text[:start].count("\n")
    end = text.rindex("}")
    entry, params, threads, symbols = _head(text[:start])
    registers, statements = {}, []
    for line, piece in _pieces(text[start + 1 : end]):
        line += before
        if piece.endswith(":"):
            statements.append(Statement(line, piece[:-1], None, (), ()))
        elif piece.startswith(".reg"):
            _declared(registers, piece)
        elif piece.startswith(".pragma"):
            continue
        else:
            found = re.fullmatch(r"(?:@(!?%[\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)", piece, re.S)
            if found is None:
                raise Unsupported(f"line {line}: {piece}")
            opcode = tuple(found[2].replace("::", "__").split("."))
            statements.append(Statement(line, None, found[1], opcode, split(found[3])))
    return Program(entry, params, threads, symbols, registers, statements)
