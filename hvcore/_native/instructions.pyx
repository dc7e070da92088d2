"""Module `instructions`: one instruction as an object. Making it costs decoding and nothing else; whatever is
asked of it is worked out then.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memcpy
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.decode.spec cimport *
from hvcore._native.decoder cimport decode_one as decode, isa, options_of
from hvcore._native.facts cimport broadcast_width, element_number, memory_width
from hvcore._native.formatter cimport format_line, syntax_number
from hvcore._native.implicit cimport implicit_memory, implicit_registers, register_uses
from hvcore._native.operands cimport make_operand, operand_total, register_name
from hvcore._native.text.operand cimport branch_target
from hvcore._native.text.spec cimport LINE_MAXIMUM, SYNTAX_INTEL

cimport cython

from hvcore._native import facts

MNEMONICS = facts.mnemonics
STATUS = ("ok", "invalid", "truncated", "too long")
ROUNDING = ("nearest", "down", "up", "zero")


@cython.final
@cython.freelist(256)
cdef class Instruction:
    """One decoded instruction.

    Of bytes that are no instruction `valid` is False, `status` says why, `length` is 1 and there are no operands.
    """

    # ---- where it is and which bytes it has

    @property
    def next_ip(self):
        """Address of the byte behind it."""
        return (self.ip + self.insn.length) & 0xFFFFFFFFFFFFFFFF

    @property
    def valid(self):
        return self.insn.status == DECODE_OK

    @property
    def truncated(self):
        """More bytes are needed than there were."""
        return self.insn.status == DECODE_TRUNCATED

    @property
    def status(self):
        """"ok", "invalid", "truncated" or "too long" (more than 15 bytes)."""
        return STATUS[self.insn.status]

    @property
    def length(self):
        """Bytes; 1 for what is no instruction."""
        return self.insn.length if self.insn.status == DECODE_OK else 1

    def __len__(self):
        return self.insn.length if self.insn.status == DECODE_OK else 1

    @property
    def bytes(self):
        """The bytes of the instruction."""
        return PyBytes_FromStringAndSize(<const char*>self.code, len(self))

    @property
    def bits(self):
        """The mode that it was decoded in: 16, 32 or 64."""
        return self.insn.mode

    # ---- what it is

    cdef u16 form_number(self) noexcept:
        return self.insn.form if self.insn.status == DECODE_OK else 0

    @property
    def form(self):
        """Index into the columns of hv.facts; 0 for what is no instruction."""
        return self.form_number()

    @property
    def mnemonic(self):
        """Name as in the table; "invalid" for what is no instruction."""
        return MNEMONICS[isa().forms[self.form_number()].mnemonic]

    @property
    def text(self):
        """The line in Intel's syntax."""
        return self.format()

    def format(self, syntax="intel"):
        """The line in a syntax: "intel", "att" or "nasm"."""
        cdef char[LINE_MAXIMUM] line
        cdef int length = format_line(&self.insn, self.code, self.ip,
                                      SYNTAX_INTEL if syntax == "intel" else syntax_number(syntax), line)
        return PyUnicode_DecodeASCII(line, length, NULL)

    @property
    def flow(self):
        """How control leaves: an hv.Flow."""
        return facts.Flow(isa().forms[self.form_number()].flow)

    @property
    def target(self):
        """Where a direct branch goes, near or absolute (JMPABS); None for anything else."""
        cdef const form_t* form = &isa().forms[self.form_number()]
        if form.operand_count and form.flow == FLOW_JUMP and form.places[0] == PLACE_IMMEDIATE:
            return <u64>self.insn.immediate
        if form.operand_count == 0 or form.places[0] != PLACE_TARGET:
            return None
        return branch_target(&self.insn, self.ip, form.flow == FLOW_TRANSACTION)

    @property
    def privileged(self):
        """It needs CPL 0."""
        return bool(facts.privileged[self.form_number()])

    @property
    def features(self):
        """CPUID features that bring it, a tuple of names."""
        return facts.feature_sets[facts.features[self.form_number()]]

    @property
    def encoding(self):
        """"legacy", "3DNOW", "VEX", "EVEX" or "XOP"."""
        return facts.spaces[facts.space[self.form_number()]]

    @property
    def table_line(self):
        """Line of isa/x64.txt."""
        return int(facts.line[self.form_number()])

    # ---- sizes and prefixes

    @property
    def operand_size(self):
        """Bits; 0 where the form has none."""
        return self.insn.operand_size

    @property
    def address_size(self):
        """Bits."""
        return self.insn.address_size

    @property
    def vector_bits(self):
        """128, 256 or 512 for VEX, EVEX and XOP forms that have a vector length, else 0."""
        return int(facts.vector_bits[self.form_number()])

    @property
    def prefixes(self):
        """An hv.Prefix of all that are there."""
        return facts.Prefix(self.insn.prefixes)

    @property
    def segment(self):
        """hv.Register number of a segment override that counts, or None."""
        return None if self.insn.segment == REGISTER_NONE else self.insn.segment

    @property
    def mask(self):
        """hv.Register number of the mask register, or None."""
        return REGISTER_MASK + self.insn.mask if self.insn.mask else None

    @property
    def zeroing(self):
        """Masked elements become 0."""
        return self.insn.evex & EVEX_ZEROING != 0

    @property
    def broadcast(self):
        """One element of memory is used for all."""
        return self.insn.evex & EVEX_BROADCAST != 0

    @property
    def rounding(self):
        """"nearest", "down", "up" or "zero" where the instruction fixes it, else None."""
        return ROUNDING[self.insn.rounding] if self.insn.evex & EVEX_ROUNDING else None

    @property
    def suppresses_exceptions(self):
        """{sae}, or rounding that is fixed."""
        return self.insn.evex & (EVEX_ROUNDING | EVEX_SUPPRESS) != 0

    # ---- operands

    @property
    def operands(self):
        """Tuple of RegisterOperand, MemoryOperand, ImmediateOperand, TargetOperand, FarOperand."""
        if self.insn.status != DECODE_OK:
            return ()
        return tuple([make_operand(&self.insn, number, self.ip) for number in range(operand_total(&self.insn))])

    def operand(self, int number):
        """One operand. Raises IndexError."""
        if self.insn.status != DECODE_OK or not 0 <= number < operand_total(&self.insn):
            raise IndexError(f"operand {number}: there are {len(self.operands)}")
        return make_operand(&self.insn, number, self.ip)

    @property
    def memory(self):
        """The first operand that is memory, or None."""
        for operand in self.operands:
            if operand.kind == facts.OperandKind.MEMORY:
                return operand
        return None

    @property
    def memory_bits(self):
        """Size of the memory operand, of one element if it is broadcast; 0 if there is none or it has no one size."""
        if self.memory is None:
            return 0
        return broadcast_width(self.insn.form) if self.broadcast else memory_width(self.insn.form)

    @property
    def memory_element(self):
        """hv.Element of the memory operand."""
        return facts.Element(0 if self.memory is None else element_number(self.insn.form))

    @property
    def displacement_offset(self):
        """Offset of the displacement in the bytes; 0 if there is none. `displacement_size` is its size in bytes."""
        return self.insn.displacement_offset if self.insn.displacement_size else 0

    @property
    def displacement_size(self):
        return self.insn.displacement_size

    @property
    def immediate_offset(self):
        """Offset of the immediate, relative target or far offset in the bytes; 0 if there is none."""
        return self.insn.immediate_offset if self.insn.immediate_size else 0

    @property
    def immediate_size(self):
        """Bytes."""
        return self.insn.immediate_size

    @property
    def immediate2_size(self):
        """Bytes of the second immediate, which follows the first: of ENTER, EXTRQ, INSERTQ, far pointers."""
        return self.insn.immediate2_size

    # ---- effects

    @property
    def flags_read(self):
        """An hv.Flags; flags_written, flags_cleared, flags_set and flags_undefined are its like."""
        return facts.Flags(int(facts.flags_read[self.form_number()]))

    @property
    def flags_written(self):
        return facts.Flags(int(facts.flags_written[self.form_number()]))

    @property
    def flags_cleared(self):
        return facts.Flags(int(facts.flags_cleared[self.form_number()]))

    @property
    def flags_set(self):
        return facts.Flags(int(facts.flags_set[self.form_number()]))

    @property
    def flags_undefined(self):
        return facts.Flags(int(facts.flags_undefined[self.form_number()]))

    @property
    def implicit_registers(self):
        """Registers that are used and that no operand names: a tuple of (name, hv.Access)."""
        if self.insn.status != DECODE_OK:
            return ()
        return tuple([(name, facts.Access(how)) for name, how in implicit_registers(&self.insn)])

    @property
    def implicit_memory(self):
        """Memory that is accessed and that no operand names: a tuple of (register with the address, hv.Access)."""
        return tuple(implicit_memory(&self.insn)) if self.insn.status == DECODE_OK else ()

    @property
    def used_registers(self):
        """All registers with what is done to them, implicit ones and those of addresses too.

        A dict: name of the register at the width that is used, to hv.Access.
        """
        return register_uses(&self.insn) if self.insn.status == DECODE_OK else {}

    def __repr__(self):
        return f"<Instruction {self.ip:#x}: {self.text}>"


cdef Instruction make_instruction(const u8* code, u32 available, u8 options, u64 ip):
    cdef Instruction instruction = Instruction.__new__(Instruction)
    decode(code, available, options, &instruction.insn)
    if available >= 16:
        memcpy(instruction.code, code, 16)      # a constant size: two moves
    else:
        memcpy(instruction.code, code, available)
    instruction.ip = ip
    return instruction


@cython.binding(False)
def decode_one(code, Py_ssize_t offset=0, *, u64 ip=0, bits=64, vendor="intel"):
    """Decode the instruction at `offset` of a buffer.

    Parameters
    ----------
    code : buffer of bytes
    offset : int
        Where the instruction starts in `code`.
    ip : int
        Address of the instruction.
    bits : 16, 32 or 64
        The mode.
    vendor : "intel" or "amd"
        For the few bytes that they read differently.

    Returns
    -------
    Instruction
        `valid` is False if the bytes are no instruction.

    Raises
    ------
    ValueError
        `offset` is outside `code`, or there is no such mode or vendor.
    """
    cdef Py_buffer source
    cdef u8 options = DECODE_64
    cdef Py_ssize_t size
    if bits != 64 or vendor != "intel":
        options = options_of(bits, vendor)
    if PyBytes_CheckExact(code):
        size = PyBytes_GET_SIZE(code)
        if not 0 <= offset < size:
            raise ValueError(f"offset {offset} is outside the {size} bytes of code")
        return make_instruction(<const u8*>PyBytes_AS_STRING(code) + offset, <u32>min(size - offset, 64), options, ip)
    PyObject_GetBuffer(code, &source, PyBUF_SIMPLE)
    try:
        if not 0 <= offset < source.len:
            raise ValueError(f"offset {offset} is outside the {source.len} bytes of code")
        return make_instruction(<const u8*>source.buf + offset, <u32>min(source.len - offset, 64), options, ip)
    finally:
        PyBuffer_Release(&source)
