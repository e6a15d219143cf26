"""A kernel's PTX as C++: registers are members of a thread, and a wait is a place to go on from.

Plain instructions are the functions of `values.h`. Those that touch memory, jump or wait are here.
"""

import re
from pathlib import Path

from .parse import Unsupported, parse

HERE = Path(__file__).parent
_VALUES = (HERE / "values.h").read_text(encoding="utf-8")
# What its macros make, besides what stands there.
_MADE = {
    "COMPARE": ("op_setp_{}", "op_setp_{}u"),
    "DIRECTED": ("op_add_{}", "op_mul_{}", "op_fma_{}"),
    "FLUSHING": ("{}_ftz",),
}
KNOWN = set(re.findall(r"\bop_\w+\b", _VALUES)) | {
    name.format(given)
    for macro, names in _MADE.items()
    for given in re.findall(rf"{macro}\((\w+)", _VALUES)
    for name in names
}

SPECIAL = {
    "%tid.x": "t.id", "%ntid.x": "l.task.threads", "%ctaid.x": "t.block_x",
    "%ctaid.y": "t.block_y", "%nctaid.x": "l.task.grid_x", "%nctaid.y": "l.task.grid_y",
    "%laneid": "(t.id & 31u)", "%warpid": "(t.id / 32u)",
    "%dynamic_smem_size": "l.task.shared_bytes",
    **dict.fromkeys(("%tid.y", "%tid.z", "%ctaid.z"), "0u"),
    **dict.fromkeys(("%ntid.y", "%ntid.z", "%nctaid.z"), "1u"),
}  # fmt: skip
# Operands whose type is not the instruction's.
SHIFTS = {"shl": (None, "u32"), "shr": (None, "u32"), "bfi": (None, None, "u32", "u32"),
          "selp": (None, None, "pred")}  # fmt: skip
# Where data may be kept in caches on its way, which changes no value.
HINTS = {"ca", "cg", "cs", "lu", "wb", "wt", "L1__no_allocate", "L2__64B", "L2__128B", "L2__256B"}
STRONG = {"relaxed": "RELAXED", "volatile": "RELAXED", "acquire": "ACQUIRE", "release": "RELEASE",
          "acq_rel": "BOTH_WAYS"}  # fmt: skip
FENCES = {("membar", "gl"), ("membar", "sys"), ("fence", "acq_rel", "gpu"),
          ("fence", "sc", "gpu"), ("fence", "acq_rel", "sys"), ("fence", "sc", "sys")}  # fmt: skip


def _name(text):
    return re.sub(r"\W", "_", text)


class _Translator:
    def __init__(self, program):
        self.program = program
        self.places = 0

    def value(self, text, kind):
        """An operand as a C++ expression of a PTX type."""
        if text.startswith("!"):
            return f"!{self.value(text[1:], kind)}"
        if text in self.program.registers:
            return f"as<{kind}>(t.{_name(text)})"
        if text in SPECIAL:
            return f"as<{kind}>({SPECIAL[text]})"
        if text in self.program.symbols:
            return f"as<{kind}>((u{kind[1:]}){self.program.symbols[text]})"
        found = re.fullmatch(r"0[fFdD]([0-9a-fA-F]+)", text)
        if found:
            return f"as<{kind}>((u{4 * len(found[1])})0x{found[1]}ull)"
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text):
            number = int(text.rstrip("U"), 0)
            if kind == "pred":
                return "true" if number else "false"
            return f"({kind}){number % 2**64}ull"
        raise Unsupported(f"the operand {text}")

    def put(self, into, value, function="put"):
        """Set a register to a C++ expression; `_` drops it."""
        return f"(void)({value});" if into == "_" else f"{function}(t.{_name(into)}, {value});"

    def address(self, text):
        found = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\d+))?\s*\]", text)
        if found is None:
            raise Unsupported(f"the address {text}")
        base, offset = found[1], int(found[2] or 0) % 2**64
        if base in self.program.symbols:
            return f"({self.program.symbols[base]}ull + {offset}ull)"
        kind = self.program.registers.get(base, "")[1:]
        if kind not in ("32", "64"):
            raise Unsupported(f"the address {text}")
        return f"((u64)as<u{kind}>(t.{_name(base)}) + {offset}ull)"

    def wait(self, why, line):
        self.places += 1
        return f"WAIT({why}, {self.places}, {line})"

    def instruction(self, statement):
        """C++ for an instruction, without its guard."""
        op, *modifiers = statement.opcode
        special = getattr(self, f"_{op}", None)
        if special is not None:
            return special(statement, modifiers, statement.operands)
        return self.plain(statement.opcode, statement.operands)

    def plain(self, opcode, operands):
        """An instruction that computes one value of its operands."""
        op, *modifiers = opcode
        if op == "cvt":
            return self.conversion(modifiers, operands)
        kind = modifiers[-1]
        name = "_".join(("op", op, *modifiers[:-1]))
        if name not in KNOWN:
            raise Unsupported(".".join(opcode))
        kinds = [given or kind for given in SHIFTS.get(op, (None,) * 4)]
        if (op, modifiers[0]) == ("mad", "wide"):
            kinds[2] = f"{kind[0]}{2 * int(kind[1:])}"
        given = ", ".join(map(self.value, operands[1:], kinds))
        return self.put(operands[0], f"{name}<{kind}>({given})")

    def conversion(self, modifiers, operands):
        *how, to, source = modifiers
        name = "_".join(("op_cvt", *how))
        if name not in KNOWN:
            raise Unsupported(f"cvt.{'.'.join(modifiers)}")
        given = self.value(operands[1], source)
        if operands[1] in self.program.registers and source[0] != "f":  # its register may be wider
            given = f"low<{source}>(t.{_name(operands[1])})"
        return self.put(operands[0], f"{name}<{to}, {source}>({given})", "extend")

    def _mov(self, statement, modifiers, operands):
        (kind,) = modifiers
        into, given = operands
        if into.startswith("{"):
            parts = split_vector(into)
            half = int(kind[1:]) // len(parts)
            puts = (self.put(part, f"(u{half})(x >> {half * k})") for k, part in enumerate(parts))
            return f"{{ u{kind[1:]} x = {self.value(given, 'u' + kind[1:])}; {' '.join(puts)} }}"
        if given.startswith("{"):
            parts = split_vector(given)
            half = int(kind[1:]) // len(parts)
            terms = (
                f"(u{kind[1:]}){self.value(part, f'u{half}')} << {half * k}"
                for k, part in enumerate(parts)
            )
            return self.put(into, " | ".join(f"({term})" for term in terms))
        return self.put(into, self.value(given, kind))

    def _cvta(self, statement, modifiers, operands):
        if "global" not in modifiers:  # shared memory has addresses of its own here
            raise Unsupported(".".join(statement.opcode))
        return self.put(operands[0], self.value(operands[1], "u64"))

    def _ret(self, statement, modifiers, operands):
        return "{ t.state = ENDED; return; }"

    _exit = _ret

    def _bra(self, statement, modifiers, operands):
        return f"goto {_name(operands[0])};"

    def _bar(self, statement, modifiers, operands):
        if modifiers == ["warp", "sync"]:
            return self.exchange("SYNC", statement, "0", "0", "0", operands[0])
        if modifiers not in (["sync"], ["sync", "aligned"]) or operands != ("0",):
            raise Unsupported(f"{'.'.join(statement.opcode)} {', '.join(operands)}")
        return self.wait("AT_BARRIER", statement.line)

    _barrier = _bar

    def _membar(self, statement, modifiers, operands):
        if statement.opcode not in FENCES:
            raise Unsupported(".".join(statement.opcode))
        return "fence(l, t);"

    _fence = _membar

    def _prefetch(self, statement, modifiers, operands):
        return f"prefetch(l, t, {self.address(operands[0])}, {statement.line});"

    _prefetchu = _prefetch

    def exchange(self, kind, statement, value, lane, limits, members):
        given = (self.value(x, "u32") for x in (value, lane, limits, members))
        names = ("value", "lane", "limits", "members")
        sets = " ".join(f"t.{name} = {x};" for name, x in zip(names, given, strict=True))
        return f"t.kind = {kind}; {sets} {self.wait('AT_SHUFFLE', statement.line)}"

    def _shfl(self, statement, modifiers, operands):
        if modifiers[0] != "sync" or modifiers[2] != "b32":
            raise Unsupported(".".join(statement.opcode))
        into, _, valid = operands[0].partition("|")
        code = self.exchange(modifiers[1].upper(), statement, *operands[1:])
        code += self.put(into, "t.value")
        return code + (self.put(valid, "t.valid") if valid else "")

    def _ld(self, statement, modifiers, operands):
        into, place = operands
        kind = modifiers[-1]
        if modifiers[0] == "param":
            k = int(re.fullmatch(r"\[[\w$]+_param_(\d+)\]", place)[1])
            if self.program.params[k][1:] != kind[1:]:
                raise Unsupported(f"parameter {k} of another width")
            return self.put(into, f"low<{kind}>(l.task.words[{k}])")
        return self.access(statement, "load", modifiers[:-1], kind, into, place)

    def _st(self, statement, modifiers, operands):
        place, given = operands
        return self.access(statement, "store", modifiers[:-1], modifiers[-1], given, place)

    def access(self, statement, what, modifiers, kind, registers, place):
        """A load or a store, of a vector or one number."""
        rest = set(modifiers) - HINTS
        scopes = rest & {"gpu", "sys"}
        order = next((STRONG[name] for name in rest & STRONG.keys()), None)
        volatile = "volatile" in rest
        if bool(scopes) != (order is not None) and not volatile:
            raise Unsupported(".".join(statement.opcode))
        vector = rest & {"v2", "v4"}
        space = rest - scopes - STRONG.keys() - vector - {"weak", "nc"}
        if space not in ({"global"}, {"shared"}) or (space == {"shared"} and order):
            raise Unsupported(".".join(statement.opcode))
        where = "CONSTANT" if "nc" in rest else space.pop().upper()
        names = split_vector(registers) if registers.startswith("{") else (registers,)
        if len(names) != int(max(vector, default="v1")[1]):
            raise Unsupported(f"{len(names)} registers of a vector")
        size = int(kind[1:]) // 8
        if order is not None:
            return self.strong(statement, what, kind, order, names, self.address(place), size)
        sent = f"{what}(l, t, {where}, {self.address(place)}, v, {len(names) * size}, "
        sent += f"{statement.line});"
        if what == "load":
            puts = (self.put(name, f"v[{k}]", "extend") for k, name in enumerate(names))
            return f"{{ {kind} v[{len(names)}]; {sent} {' '.join(puts)} }}"
        return f"{{ {kind} v[] = {{{', '.join(self.low(n, kind) for n in names)}}}; {sent} }}"

    def low(self, name, kind):
        """A register that may be wider than what is stored."""
        known = name in self.program.registers
        return f"low<{kind}>(t.{_name(name)})" if known else self.value(name, kind)

    def strong(self, statement, what, kind, order, names, address, size):
        """Each number by itself, since a vector is not one access; others may come between."""
        code = f"t.address = {address}; "
        for k, name in enumerate(names):
            at = f"t.address + {k * size}"
            code += self.wait("POLLING" if what == "load" else "READY", statement.line)
            if what == "load":
                code += f" {{ {kind} v; load_strong(l, t, {at}, &v, {size}, {order}, "
                code += f"{statement.line}); {self.put(name, 'v', 'extend')} }} "
            else:
                code += f" {{ {kind} v = {self.low(name, kind)}; store_strong(l, t, {at}, &v, "
                code += f"{size}, {order}, {statement.line}); }} "
        return code

    def _atom(self, statement, modifiers, operands):
        order = next((STRONG[name] for name in modifiers if name in STRONG), "RELAXED")
        rest = [name for name in modifiers if name not in STRONG and name not in ("gpu", "sys")]
        space, change, kind = rest if len(rest) == 3 else (None, None, "u0")
        if space != "global" or kind[0] == "f" or f"op_{change}" not in KNOWN | {"op_exch"}:
            raise Unsupported(".".join(statement.opcode))
        into, place, given = operands if len(operands) == 3 else ("_", *operands)
        size = int(kind[1:])
        call = f"modify(l, t, {self.address(place)}, (u{size}){self.value(given, kind)}, "
        call += f"changed<{kind}, op_{change}<{kind}>>, {size // 8}, {order}, {statement.line})"
        return self.put(into, f"({kind}){call}")

    _red = _atom


def split_vector(text):
    return tuple(part.strip() for part in text.strip("{}").split(","))


def translate(ptx):
    """Return (C++, Program) of a kernel's PTX. Raises Unsupported."""
    program = parse(ptx)
    translator, lines = _Translator(program), []
    for statement in program.statements:
        if statement.label:
            lines.append(f"{_name(statement.label)}:;")
            continue
        try:
            code = translator.instruction(statement)
        except (Unsupported, ValueError, IndexError) as error:
            what = f"{'.'.join(statement.opcode)} {', '.join(statement.operands)}"
            raise Unsupported(f"PTX line {statement.line}: {what}: {error}") from None
        if statement.guard:
            code = f"if ({translator.value(statement.guard, 'pred')}) {{ {code} }}"
        lines.append(code)
    members = "\n".join(f"  {kind} {_name(name)};" for name, kind in program.registers.items())
    text = "\n  ".join(lines)
    return (
        f'#include "machine.h"\nstruct Registers : Thread {{\n  u64 address;\n{members}\n}};\n'
        "static void body(Launch& l, Thread& thread) {\n"
        "  Registers& t = static_cast<Registers&>(thread);\n"
        f"  switch (t.place) {{ case 0:;\n  {text}\n  }}\n  t.state = ENDED;\n}}\n"
        'extern "C" int launch_ptx(const Task* task) {\n'
        "  return run_launch(task, sizeof(Registers), body);\n}\n"
    ), program
