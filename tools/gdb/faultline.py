"""Commands of gdb that know the kernel's structures: fl-threads, fl-tasks, fl-pages ADDRESS [THREAD], fl-requests;
and fl-mark, by which a replay goes backwards faster.

They read memory and change nothing: no function of the kernel is called, and no lock is taken. What a CPU is changing at the
moment at which the machine stopped may look odd. What fields are called comes from the kernel's own debug information; a
field that has another name now is an error that says so.
"""
import re

import gdb

# By itself gdb takes the language of the function that the CPU is in, and there is none in ring 3.
gdb.execute("set language rust")

PAGE = 4096
# Of `executor/src/task/state.rs`, `header.rs` and `spent.rs`.
SCHEDULED, RUNNING, DONE, THREAD = 1 << 0, 1 << 1, 1 << 2, 1 << 7
REASON, NAME_SHIFT, SINCE_SHIFT, SINCE_UNIT_SHIFT, POLLS_SHIFT = 0xFF, 8, 24, 10, 40
# Of `mm/src/page_state.rs`: the codes of states, in the lowest four bits of an entry.
STATES = (
    "Absent Loading LoadingInvalidated Loaded Dirty Failed Dropped WritingBack WritingBackDiscarded "
    "Swapped SwappingOut SwappingIn"
).split()
UNDER_WAY = {1, 2, 7, 8, 10, 11}
HAS_FRAME = {3, 4, 7, 8, 10}
# Of `mm/src/page_entry.rs`.
PRESENT, LARGE, ADDRESS = 1, 1 << 7, 0x000F_FFFF_FFFF_F000
FLAGS = [(1 << 1, "writable"), (1 << 2, "user"), (1 << 5, "accessed"), (1 << 6, "dirty"), (1 << 63, "no execute")]


class Unknown(gdb.GdbError):
    """The kernel's structures are not as they are read here."""


# --- Values of Rust ---


def static(name):
    """A static of the kernel's, by its path."""
    try:
        return gdb.parse_and_eval(name)
    except gdb.error as why:
        raise Unknown(f"{name} is not there: {why} (are these the kernel's symbols?)")


def field(value, path):
    """The field that a path of names leads to."""
    for name in path.split("."):
        try:
            value = value[name]
        except (gdb.error, KeyError):
            raise Unknown(f"{value.type} has no field {name} any more")
    return value


def inner(value):
    """What wrappers are around: a number or a pointer behind structures of one field."""
    while value.type.strip_typedefs().code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        fields = [each for each in value.type.fields() if each.type.sizeof > 0]
        if not fields:
            raise Unknown(f"{value.type} is empty")
        value = value[fields[0]]
    return value


def number(value):
    return int(inner(value)) & ((1 << 64) - 1)


def word(value):
    """The first eight bytes of a value: 0 is the `None` of an `Option` of a pointer."""
    return int(value.address.cast(gdb.lookup_type("u64").pointer()).dereference())


def locked(lock):
    """What a `SpinLock` guards."""
    return field(lock, "value.value")


def once(cell):
    """What a `OnceCell` holds; `None` before that."""
    if number(field(cell, "state")) != 2:
        return None
    return unwrapped(field(cell, "inner.value"))


def unwrapped(value):
    """What is in `ManuallyDrop` and the like: structures around one other structure."""
    while (value.type.name or "").startswith(("core::mem::", "core::cell::")):
        value = value[[each for each in value.type.fields() if each.type.sizeof > 0][0]]
    return value


def variant(value):
    """The name of the variant that an enum has now, and the value of that."""
    # The other field is the number that tells variants apart.
    now = [each for each in value.type.fields() if each.name and not each.artificial]
    if len(now) != 1:
        raise Unknown(f"{value.type} is no enum with fields")
    return now[0].name, value[now[0]]


def arc(value):
    """What an `Arc` or `Weak` leads to; `None` if it is gone."""
    counted = inner(value).dereference()
    return field(counted, "data") if number(field(counted, "strong")) else None


def elements(vec):
    """The values of a `Vec`."""
    first = inner(field(vec, "buf.inner.ptr")).cast(vec.type.template_argument(0).pointer())
    return [(first + index).dereference() for index in range(int(field(vec, "len")))]


def queued(deque):
    """The values of a `VecDeque`."""
    first = inner(field(deque, "buf.inner.ptr")).cast(deque.type.template_argument(0).pointer())
    room = number(field(deque, "buf.inner.cap"))
    head = int(field(deque, "head"))
    return [(first + (head + index) % room).dereference() for index in range(int(field(deque, "len")))]


def text(value):
    """A `&str` or a `String`."""
    if value.type.name == "&str":
        length, start = int(value["length"]), value["data_ptr"]
    else:
        length, start = int(field(value, "vec.len")), inner(field(value, "vec.buf.inner.ptr"))
    return bytes(gdb.selected_inferior().read_memory(int(start), length)).decode(errors="replace") if length else ""


def tree_values(tree):
    """The values of a `BTreeMap`, in order of their keys."""
    if not int(field(tree, "length")):
        return []
    root = variant(field(tree, "root"))[1]["__0"]
    leaf = inner(field(root, "node"))
    values, inside = [], gdb.lookup_type(leaf.type.target().name.replace("LeafNode", "InternalNode", 1))

    def visit(leaf, height):
        length = int(field(leaf.dereference(), "len"))
        edges = field(leaf.cast(inside.pointer()).dereference(), "edges") if height else None
        for index in range(length):
            if height:
                visit(inner(unwrapped(edges[index]["value"])), height - 1)
            values.append(unwrapped(field(leaf.dereference(), "vals")[index]["value"]))
        if height:
            visit(inner(unwrapped(edges[length]["value"])), height - 1)

    visit(leaf, int(field(root, "height")))
    return values


def ordered_values(ordered):
    """The values of one of mm's `OrderedMap`s, in order of their keys."""
    values, waiting = [], []
    root = field(ordered, "root")
    node_type = gdb.lookup_type(ordered.type.name.replace("OrderedMap", "Node", 1)).pointer()
    at = word(root)
    while at or waiting:
        while at:
            waiting.append(at)
            at = word(field(gdb.Value(at).cast(node_type).dereference(), "left"))
        node = gdb.Value(waiting.pop()).cast(node_type).dereference()
        values.append(field(node, "value"))
        at = word(field(node, "right"))
    return values


# --- Tasks and threads ---


def cpus():
    """What each CPU has for itself, by number."""
    found, at = {}, inner(static("executor::cpu::list::FIRST"))
    while int(at):
        cpu = at.dereference()
        found[int(field(cpu, "id"))] = cpu
        at = inner(field(cpu, "next"))
    return dict(sorted(found.items()))


def spaced(name):
    """`BlockIo` as words."""
    return "".join(" " + letter.lower() if letter.isupper() else letter for letter in name).strip()


class Task:
    """A task's header, read."""

    def __init__(self, header):
        self.state_bits = number(field(header, "state"))
        self.number = number(field(header, "id"))
        info = number(field(header, "info"))
        self.polls = number(field(header, "account")) >> POLLS_SHIFT
        self.cpu = int(field(inner(field(header, "home")).dereference(), "id"))
        names = locked(static("executor::task::names::NAMES"))
        self.name = text(field(names, "known")[info >> NAME_SHIFT & 0xFF])
        reasons = {each.enumval: each.name for each in gdb.lookup_type("executor::reason::WaitReason").fields()}
        self.reason, self.since = "", ""
        if self.state == "waiting":
            self.reason = spaced(reasons.get(info & REASON, "Other").rsplit("::", 1)[-1])
            self.since = f"{(info >> SINCE_SHIFT << SINCE_UNIT_SHIFT) / 1e9:.6f}"

    @property
    def state(self):
        for bit, name in ((DONE, "done"), (RUNNING, "running"), (SCHEDULED, "ready")):
            if self.state_bits & bit:
                return name
        return "waiting"


def tasks():
    """All tasks that are not done, those of threads included."""
    header = gdb.lookup_type("executor::task::header::Header").pointer()
    for cpu in cpus().values():
        slots = field(cpu, "registry.slots.value")
        left, chunks = int(field(slots, "used")), field(slots, "chunks")
        for index in range(chunks.type.range()[1] + 1):
            for entry in elements(chunks[index])[:left]:
                # A free slot is the number of another one, and odd.
                if not int(entry) & 1:
                    yield Task(gdb.Value(int(entry)).cast(header).dereference())
            left -= min(left, int(field(chunks[index], "len")))


def threads():
    """The threads that have not ended."""
    listed = [arc(weak) for weak in tree_values(locked(static("kernel::thread::THREADS")))]
    return [thread for thread in listed if thread is not None]


def thread_task(thread):
    task = once(field(thread, "task"))
    return None if task is None else Task(inner(task).dereference())


def plain(name):
    """A function's name without the types that it was made for."""
    depth, kept = 0, ""
    for at, letter in enumerate(name):
        # The arrow of a function's type closes nothing.
        depth -= letter == ">" and name[at - 1] != "-"
        depth += letter == "<"
        if not depth and letter != ">":
            kept += letter
    return kept


def shortened(file):
    """A file's name without what is the same for all files of a library."""
    for above in ("/rust/library/", "/registry/src/"):
        if above in file:
            rest = file.split(above, 1)[1]
            return rest if "library" in above else rest.split("/", 1)[1]
    return file


def functions(pc):
    """The functions that an address is in: the innermost first, then what it was inlined into."""
    block, names = gdb.block_for_pc(pc), []
    while block and not block.is_global and not block.is_static:
        if block.function:
            names.append(plain(block.function.name))
        block = block.superblock
    place = gdb.find_pc_line(pc)
    where = f" ({shortened(place.symtab.filename)}:{place.line})" if place.symtab else ""
    return (names or ["?"]), where


def backtrace(context):
    """Lines for where a thread stands that does not run, by its frame pointers."""
    pc, frame = int(field(context, "rip")), int(field(context, "rbp"))
    if int(field(context, "cs")) & 3:
        yield f"    in ring 3 at {pc:#x}, stack {int(field(context, 'rsp')):#x}"
        return
    memory = gdb.selected_inferior()
    for depth in range(64):
        # Of a call, the next instruction may be another function's.
        names, where = functions(pc - (depth > 0))
        yield f"    #{depth} {pc:#x} {names[0]}{where}"
        for name in names[1:]:
            yield f"        inlined into {name}"
        try:
            above = int.from_bytes(memory.read_memory(frame, 8), "little")
            pc = int.from_bytes(memory.read_memory(frame + 8, 8), "little")
        except gdb.MemoryError:
            return
        if not pc or above <= frame:
            return
        frame = above


# --- Pages ---


class Physical:
    """Physical memory, which the kernel has mapped whole."""

    def __init__(self, memory):
        self.base = int(inner(field(memory, "frames.window")))

    def read(self, address):
        return int.from_bytes(gdb.selected_inferior().read_memory(self.base + address, 8), "little")


def entry_of(pages, index):
    """The entry of a page in a `PageIndexMap`."""
    for at, entry in entries(pages):
        if at == index:
            return entry
    return 0


def entries(pages):
    """The pages of a `PageIndexMap` that are not absent: numbers and entries."""

    def visit(option, base, shift):
        name, node = variant(option)
        if name == "None":
            return
        kind, place = variant(node["__0"])
        below = inner(place["__0"]).dereference()
        if kind == "Chunk":
            slots = field(below, "entries")
            for slot in range(64):
                entry = number(slots[slot])
                if entry:
                    yield base + slot, entry
        else:
            for slot in range(64):
                yield from visit(below[slot], base + (slot << shift), shift - 6)

    yield from visit(field(pages, "root"), 0, int(field(pages, "shift")))


def state_text(entry):
    """A page's state, with what belongs to it."""
    code, rest = entry & 15, (entry // PAGE) & ((1 << 40) - 1)
    if code in HAS_FRAME:
        return f"{STATES[code]}, frame {rest:#x}"
    return f"{STATES[code]}, slot {rest:#x}" if code in (9, 11) else STATES[code]


def disks():
    found = once(static("kernel::machine::DISKS"))
    return [] if found is None else elements(found)


def object_text(held):
    """What an object is called: by the disk that it shows, or by its number."""
    for disk in disks():
        if word(field(disk, "object")) == word(held):
            return f"the object of {text(field(disk, 'name'))}"
    return f"object {int(field(arc(held), 'number'))}"


def pages_of(held):
    return field(locked(field(arc(held), "inner")), "pages")


# --- Commands ---


class Threads(gdb.Command):
    """fl-threads: the threads, what each waits for, and where those stand that do not run."""

    def __init__(self):
        super().__init__("fl-threads", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        listed = threads()
        for thread in listed:
            task = thread_task(thread)
            state = "new" if task is None else {"waiting": "parked"}.get(task.state, task.state)
            line = f"thread {number(field(thread, 'id'))} {text(field(thread, 'name'))}: {state}"
            if task and task.reason:
                line += f" for {task.reason} since {task.since}"
            faults = number(field(thread, "counters.faults"))
            print(f"{line}, cpu {task.cpu if task else '-'}, {faults} faults")
            if state != "running":
                for each in backtrace(field(thread, "context.value")):
                    print(each)
        if not listed:
            print("no threads")


class Tasks(gdb.Command):
    """fl-tasks: the tasks of the executor but for those of threads."""

    def __init__(self):
        super().__init__("fl-tasks", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        print(f"{'task':>8}  {'name':<16}  {'state':<8} {'cpu':>3}  {'polls':>8}  waits for")
        for task in tasks():
            if not task.state_bits & THREAD:
                waits = f"{task.reason} since {task.since}" if task.reason else ""
                line = f"{task.number:>8}  {task.name:<16}  {task.state:<8} {task.cpu:>3}  {task.polls:>8}  {waits}"
                print(line.rstrip())


class Requests(gdb.Command):
    """fl-requests: for each disk, the requests that the device has, those that wait for it, and the pages that are under way."""

    def __init__(self):
        super().__init__("fl-requests", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        for disk in disks():
            desk = arc(field(arc(field(disk, "device")), "desk"))
            counters = field(desk, "counters")
            count = {name: number(field(counters, name)) for name in ("in_flight", "requests", "errors")}
            print(
                f"{text(field(disk, 'name'))}: {count['in_flight']} requests under way, "
                f"{count['requests']} taken up so far, {count['errors']} failed"
            )
            for pending in queued(field(locked(field(desk, "inbox")), "waiting")):
                print(f"    waits: {str(field(pending, 'op')).rsplit('::', 1)[-1]} from sector {int(field(pending, 'sector'))}")
            pages = {}
            for index, entry in entries(pages_of(field(disk, "object"))):
                if entry & 15 in UNDER_WAY:
                    pages.setdefault(STATES[entry & 15], []).append(str(index))
            for state, numbers in pages.items():
                print(f"    {state}: pages {' '.join(numbers)}")


class Pages(gdb.Command):
    """fl-pages ADDRESS [THREAD]: what the page tables say of an address, which mapping it is in, and its page's state.

    An address of the lower half is one of the space that the CPU has loaded, or of the thread with this number."""

    def __init__(self):
        super().__init__("fl-pages", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        words = gdb.string_to_argv(argument)
        if not 1 <= len(words) <= 2:
            raise gdb.GdbError("fl-pages ADDRESS [THREAD]")
        address = int(gdb.parse_and_eval(words[0])) & ((1 << 64) - 1)
        space = self.space(address, int(words[1]) if len(words) == 2 else None)
        memory = once(static("kernel::memory::MEMORY"))
        if memory is None:
            raise gdb.GdbError("the kernel has not taken over the memory yet")
        root = number(field(arc(field(space, "table")), "root"))
        for line in self.walk(Physical(memory), root, address):
            print(line)
        print(self.mapping(space, address))

    def space(self, address, wanted):
        """The space that an address belongs to."""
        if address >> 63:
            kernel = once(static("kernel::memory::KERNEL_SPACE"))
            if kernel is None:
                raise gdb.GdbError("the kernel has no address space yet")
            return arc(field(kernel, "space"))
        loaded = int(gdb.parse_and_eval("$cr3")) & ADDRESS
        for thread in threads():
            name, some = variant(field(thread, "space"))
            if name == "None":
                continue
            space = arc(some["__0"])
            if number(field(thread, "id")) == wanted:
                return space
            if wanted is None and number(field(arc(field(space, "table")), "root")) == loaded:
                return space
        raise gdb.GdbError("no thread has such a space: name one by its number")

    def walk(self, physical, root, address):
        """A line for each level of the page tables."""
        table = root
        for level in (4, 3, 2, 1):
            slot = address >> (3 + 9 * level) & 0x1FF
            entry = physical.read(table + 8 * slot)
            if not entry & PRESENT:
                yield f"level {level}, entry {slot}: not present"
                return
            flags = ", ".join(name for bit, name in FLAGS if entry & bit)
            is_page = level == 1 or level < 4 and entry & LARGE
            target = (entry & ADDRESS) // PAGE
            yield f"level {level}, entry {slot}: {'frame' if is_page else 'table in frame'} {target:#x} ({flags})"
            if is_page:
                return
            table = entry & ADDRESS

    def mapping(self, space, address):
        """The mapping that an address is in, and the state of the page that it shows there."""
        for mapping in ordered_values(field(locked(field(space, "mappings")), "by_start")):
            start, pages = number(field(mapping, "start")), int(field(mapping, "pages"))
            if not start <= address < start + pages * PAGE:
                continue
            rights = field(mapping, "protection")
            allows = "".join(letter for letter, name in zip("rwxu", ("read", "write", "execute", "user")) if rights[name])
            index = int(field(mapping, "first")) + (address - start) // PAGE
            where = f"mapping {start:#x}..{start + pages * PAGE:#x} ({allows})"
            kind, shows = variant(field(mapping, "shows"))
            if kind == "Shared":
                held = shows["__0"]
                return f"{where}: page {index} of {object_text(held)}: {state_text(entry_of(pages_of(held), index))}"
            if kind == "Private":
                return f"{where}: page {index} of private memory: {self.private(arc(shows['__0']), shows['__1'], index)}"
            return f"{where}: page {index} of given frames"
        return "nothing is mapped there"

    def private(self, memory, version, index):
        """The state of a page in a version of private memory, or in what that began from."""
        versions = elements(field(locked(field(memory, "inner")), "versions.versions"))
        place = int(field(version, "place"))
        while place is not None:
            some = variant(versions[place])[1]["__0"]
            entry = entry_of(field(some, "pages"), index)
            if entry:
                return state_text(entry)
            name, parent = variant(field(some, "parent"))
            place = None if name == "None" else int(parent["__0"])
        name, base = variant(field(memory, "base"))
        if name == "None":
            return "Absent"
        below = index + int(field(base["__0"], "first"))
        held = field(base["__0"], "object")
        return f"Absent; below, page {below} of {object_text(held)}: {state_text(entry_of(pages_of(held), below))}"


class Mark(gdb.Command):
    """fl-mark: marks this moment of a replay. Steps backwards to later moments run again from here: what they cost grows
    with the distance to the last mark before them."""

    def __init__(self):
        super().__init__("fl-mark", gdb.COMMAND_RUNNING)

    def invoke(self, argument, from_tty):
        replay = re.search(r"Replaying .* instruction count = (\d+)", gdb.execute("monitor info replay", to_string=True))
        if replay is None:
            raise gdb.GdbError("only a replay can go backwards: cargo run -- --replay FILE --gdb")
        trouble = gdb.execute(f"monitor savevm instruction-{replay.group(1)}", to_string=True).strip()
        if trouble:
            raise gdb.GdbError(f"QEMU makes no snapshot here: {trouble}")
        print(f"marked: instruction {replay.group(1)}")


for command in (Threads, Tasks, Requests, Pages, Mark):
    command()
