"""Module `operands`: the operands of an instruction as objects, made when somebody asks.

Registers have the number of hv.Register, which names the architectural register, and a width of their own.
"""
from hvcore._native.base.types cimport i64, u8, u16, u32, u64
from hvcore._native.decode.spec cimport *
from hvcore._native.decoder cimport isa
from hvcore._native.text.operand cimport absolute_address, branch_target, default_segment

from hvcore._native.facts cimport (
    broadcast_width, element_number, index_width, memory_width, operand_width, register_text,
)

from hvcore._native import facts

ACCESS_NAMES = {1: "r", 2: "w", 3: "rw", 4: "a", 9: "cr", 10: "cw", 11: "crw"}


cdef object register_name(u8 number, int bits):
    """The name of a register at a width; None for no register."""
    return None if number == REGISTER_NONE else register_text(number, bits)


cdef int operand_total(const insn_t* insn) noexcept nogil:
    return isa().forms[insn.form].operand_count


cdef class Operand:
    """What all operands have. `access` is an hv.Access: what the instruction does with it."""
    cdef readonly int number
    cdef u8 how

    @property
    def access(self):
        return facts.Access(self.how)

    @property
    def is_read(self):
        """It is read, perhaps only under a condition."""
        return self.how & ACCESS_READ != 0

    @property
    def is_written(self):
        """It is written, perhaps only under a condition."""
        return self.how & ACCESS_WRITE != 0


cdef class RegisterOperand(Operand):
    """A register: `register` is its hv.Register number, `bits` its width, `name` both in one word."""
    cdef readonly int register
    cdef readonly int bits
    kind = facts.OperandKind.REGISTER

    @property
    def name(self):
        return register_name(self.register, self.bits)

    def __repr__(self):
        return f"<RegisterOperand {self.name} {ACCESS_NAMES.get(self.how, '-')}>"


cdef class MemoryOperand(Operand):
    """Memory. `base` and `index` are hv.Register numbers or None; `scale` is 1, 2, 4 or 8.

    `displacement` is signed, with the disp8*N of EVEX multiplied out; `address` is the whole address where no register
    but RIP takes part, else None. `bits` is what is accessed, 0 where that has no one size.
    """
    cdef insn_t insn
    cdef u64 ip
    cdef u8 place
    kind = facts.OperandKind.MEMORY

    cdef u8 base_number(self) noexcept:
        if self.place == PLACE_SOURCE:
            return 6
        if self.place == PLACE_DESTINATION:
            return 7
        if self.place == PLACE_TABLE:
            return 3
        return REGISTER_NONE if self.place == PLACE_OFFSET else self.insn.base

    @property
    def base(self):
        cdef u8 number = self.base_number()
        return None if number == REGISTER_NONE else number

    @property
    def base_name(self):
        return register_name(self.base_number(), self.insn.address_size)

    @property
    def index(self):
        return None if self.place != PLACE_RM or self.insn.index == REGISTER_NONE else self.insn.index

    @property
    def index_name(self):
        if self.index is None:
            return None
        if self.insn.index >= REGISTER_VECTOR:
            return register_name(self.insn.index, index_width(self.insn.form))
        return register_name(self.insn.index, self.insn.address_size)

    @property
    def scale(self):
        return 1 << self.insn.scale if self.place == PLACE_RM else 1

    @property
    def displacement(self):
        return self.insn.displacement if self.place in (PLACE_RM, PLACE_OFFSET) else 0

    @property
    def segment(self):
        """hv.Register number of the segment that the address is relative to, overrides counted."""
        if self.place == PLACE_DESTINATION:
            return REGISTER_ES
        if self.insn.segment != REGISTER_NONE:
            return self.insn.segment
        return default_segment(&self.insn) if self.place == PLACE_RM else REGISTER_DS

    @property
    def segment_name(self):
        return register_name(self.segment, 16)

    @property
    def address_size(self):
        """Bits."""
        return self.insn.address_size

    @property
    def address(self):
        cdef bint absolute = self.place == PLACE_OFFSET or self.place == PLACE_RM and (
            self.insn.base == REGISTER_RIP or self.insn.base == REGISTER_NONE and self.insn.index == REGISTER_NONE)
        return absolute_address(&self.insn, self.ip) if absolute else None

    @property
    def bits(self):
        if self.is_broadcast:
            return broadcast_width(self.insn.form)
        return memory_width(self.insn.form)

    @property
    def element(self):
        """hv.Element: the type of what is accessed, of one element where there are several."""
        return facts.Element(element_number(self.insn.form))

    @property
    def is_broadcast(self):
        """One element is read and used for all (EVEX.b)."""
        return self.insn.evex & EVEX_BROADCAST != 0

    def __repr__(self):
        parts = [name for name in (self.base_name, self.index_name and f"{self.index_name}*{self.scale}") if name]
        if self.displacement or not parts:
            parts.append(f"{self.displacement:#x}")
        return f"<MemoryOperand {self.segment_name}:[{' + '.join(parts)}] {self.bits} bits " \
               f"{ACCESS_NAMES.get(self.how, '-')}>"


cdef class ImmediateOperand(Operand):
    """A constant: `value` as the instruction uses it, sign-extended where it is; `bits` of it are encoded."""
    cdef readonly object value
    cdef readonly int bits
    kind = facts.OperandKind.IMMEDIATE

    def __repr__(self):
        return f"<ImmediateOperand {self.value:#x}>"


cdef class TargetOperand(Operand):
    """Where a relative branch goes."""
    cdef readonly u64 address
    kind = facts.OperandKind.TARGET

    def __repr__(self):
        return f"<TargetOperand {self.address:#x}>"


cdef class FarOperand(Operand):
    """A far pointer in the instruction."""
    cdef readonly int selector
    cdef readonly u64 offset
    kind = facts.OperandKind.FAR

    def __repr__(self):
        return f"<FarOperand {self.selector:#x}:{self.offset:#x}>"


cdef u8 register_of(const insn_t* insn, const form_t* form, int number, int bits) noexcept:
    """The hv.Register number of a register operand."""
    cdef u8 place = form.places[number], base = form.register_bases[number], low
    if place == PLACE_FIXED:
        return base
    low = (insn.reg if place == PLACE_REG else insn.vvvv if place == PLACE_VVVV else
           insn.is4 if place == PLACE_IS4 else insn.rm)
    if base == REGISTER_GENERAL and bits == 8 and 4 <= low < 8 and not insn.prefixes & (
            PREFIX_REX | PREFIX_REX2 | PREFIX_VEX | PREFIX_EVEX | PREFIX_XOP):
        return REGISTER_HIGH + low - 4
    return base + low


cdef u8 masked_access(const insn_t* insn, u8 access, bint is_memory, int bits) except 255:
    """What an EVEX mask that merges makes of a write: the other elements stay, the rest of the register is cleared."""
    if not insn.mask or insn.evex & EVEX_ZEROING or not access & ACCESS_WRITE or "blendm" in mnemonic_of(insn):
        return access
    if is_memory:
        return access | ACCESS_CONDITIONAL
    return ACCESS_READ | ACCESS_WRITE | (ACCESS_CONDITIONAL if bits == 512 else 0)


cdef u8 whole_access(const insn_t* insn, const form_t* form, int number, u8 access, int bits) except 255:
    """A conditional write that clears the upper part of its register in any case is none."""
    cdef u8 base = form.register_bases[number]
    if access & ACCESS_CONDITIONAL and access & ACCESS_WRITE and (
            base < REGISTER_VECTOR and bits == 32 and insn.mode == 64 and mnemonic_of(insn).startswith("cmov") or
            base < REGISTER_MASK and base >= REGISTER_VECTOR and bits < 512 and
            insn.prefixes & (PREFIX_VEX | PREFIX_EVEX | PREFIX_XOP)):
        return ACCESS_READ | ACCESS_WRITE
    return access


cdef str mnemonic_of(const insn_t* insn):
    return facts.mnemonics[isa().forms[insn.form].mnemonic]


cdef u8 repeated_access(const insn_t* insn, u8 access, u8 place) noexcept:
    """With REP in front a string instruction may access memory never."""
    if insn.prefixes & (PREFIX_REP | PREFIX_REPNE) and place in (PLACE_SOURCE, PLACE_DESTINATION):
        return access | ACCESS_CONDITIONAL
    return access


cdef object make_memory(const insn_t* insn, int number, u64 ip, u8 place, u8 access):
    cdef MemoryOperand memory = MemoryOperand.__new__(MemoryOperand)
    memory.insn, memory.ip, memory.place, memory.number, memory.how = insn[0], ip, place, number, access
    return memory


cdef object make_operand(const insn_t* insn, int number, u64 ip):
    """Operand `number` of an instruction that was decoded."""
    cdef const form_t* form = &isa().forms[insn.form]
    cdef u8 place = form.places[number], access = form.access[number]
    cdef RegisterOperand register
    cdef ImmediateOperand immediate
    cdef TargetOperand target
    cdef FarOperand far
    if place == PLACE_RM and insn.is_memory or place in (
            PLACE_OFFSET, PLACE_SOURCE, PLACE_DESTINATION, PLACE_TABLE):
        if number == 0:
            access = masked_access(insn, access, True, 0)
        return make_memory(insn, number, ip, place, repeated_access(insn, access, place))
    if place in (PLACE_IMMEDIATE, PLACE_IMMEDIATE2, PLACE_ONE):
        immediate = ImmediateOperand.__new__(ImmediateOperand)
        immediate.number, immediate.how = number, ACCESS_READ
        immediate.bits = 0 if place == PLACE_ONE else 8 * (insn.immediate_size if place == PLACE_IMMEDIATE else
                                                           insn.immediate2_size)
        immediate.value = 1 if place == PLACE_ONE else insn.immediate if place == PLACE_IMMEDIATE else insn.immediate2
        return immediate
    if place == PLACE_TARGET:
        target = TargetOperand.__new__(TargetOperand)
        target.number, target.how = number, ACCESS_READ
        target.address = branch_target(insn, ip, form.flow == FLOW_TRANSACTION)
        return target
    if place == PLACE_FAR:
        far = FarOperand.__new__(FarOperand)
        far.number, far.how, far.selector, far.offset = number, ACCESS_READ, <int>insn.immediate2, <u64>insn.immediate
        return far
    register = RegisterOperand.__new__(RegisterOperand)
    register.number, register.bits = number, operand_width(insn.form, number)
    if number == 0 and form.register_bases[0] == REGISTER_VECTOR:
        access = masked_access(insn, access, False, register.bits)
    register.how = whole_access(insn, form, number, access, register.bits)
    register.register = register_of(insn, form, number, register.bits)
    return register
