//! Seccomp programs, put together from rules.
//!
//! Our own few lines instead of a crate, because the canary thread's filter answers for two tables of calls, and a filter
//! here has four answers: the crates know one table and two answers.

/// `AUDIT_ARCH_X86_64`.
const ARCH_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`.
const ARCH_I386: u32 = 0x4000_0003;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is made.
    Allow,
    /// It fails with this error, and nobody hears of it.
    Error(i32),
    /// It fails with `EPERM`, by way of SIGSYS, which is counted.
    Refuse,
    /// It ends the process.
    Kill,
}

impl Answer {
    const fn code(self) -> u32 {
        match self {
            Answer::Allow => libc::SECCOMP_RET_ALLOW,
            Answer::Error(error) => libc::SECCOMP_RET_ERRNO | error as u32,
            Answer::Refuse => libc::SECCOMP_RET_TRAP,
            Answer::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// What an argument must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// All 64 bits are these.
    Exactly(u64),
    /// The lower half is this: for arguments that the kernel takes as an `int`.
    Word(u32),
    /// None of these bits of the lower half is set.
    Without(u32),
}

/// A call, what its arguments must be like, and what becomes of it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its number.
    pub(crate) nr: u32,
    /// Which argument, from 0, and what it must be like; all must hold.
    pub(crate) tests: Vec<(u32, Test)>,
    /// Then this is the answer.
    pub(crate) answer: Answer,
}

impl Rule {
    pub(crate) fn new(nr: u32, tests: &[(u32, Test)], answer: Answer) -> Self {
        Rule { nr, tests: tests.to_vec(), answer }
    }
}

/// The rules of both tables. The first rule of a number that holds decides; a call for which none holds is refused, one
/// of a table without rules ends the process.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) x86_64: Vec<Rule>,
    pub(crate) i386: Vec<Rule>,
}

/// A program, as the kernel takes it.
pub(crate) type Program = Vec<libc::sock_filter>;

impl Rules {
    /// The program.
    ///
    /// # Errors
    /// A call has more rules than a jump of a program can pass over, or all are more than the kernel takes.
    pub(super) fn program(&self) -> Result<Program, &'static str> {
        let i386 = if self.i386.is_empty() { vec![answer(Answer::Kill)] } else { table(&self.i386)? };
        let x86_64 = table(&self.x86_64)?;
        let length = u32::try_from(i386.len()).map_err(|_| TOO_LONG)?;
        let mut program = vec![
            load(ARCH),
            jump_equal(ARCH_I386, 0, 1),
            jump(3),
            jump_equal(ARCH_X86_64, 1, 0),
            answer(Answer::Kill),
            jump(length),
        ];
        program.extend(i386);
        program.extend(x86_64);
        // `BPF_MAXINSNS`.
        if program.len() <= 4096 { Ok(program) } else { Err(TOO_LONG) }
    }
}

const TOO_LONG: &str = "the filter is too long";

/// Judges a call of one table.
fn table(rules: &[Rule]) -> Result<Program, &'static str> {
    let mut numbers: Vec<u32> = Vec::new();
    for rule in rules {
        if !numbers.contains(&rule.nr) {
            numbers.push(rule.nr);
        }
    }
    let mut program = vec![load(NR)];
    for nr in numbers {
        let mut body = Vec::new();
        let mut decided = false;
        for rule in rules.iter().filter(|rule| rule.nr == nr) {
            let rule_body = of_rule(rule)?;
            decided |= rule.tests.is_empty();
            body.extend(rule_body);
        }
        if !decided {
            body.push(answer(Answer::Refuse));
        }
        program.push(jump_equal(nr, 0, u8::try_from(body.len()).map_err(|_| TOO_LONG)?));
        program.extend(body);
    }
    program.push(answer(Answer::Refuse));
    Ok(program)
}

/// The answer if all tests hold; else what comes behind it.
fn of_rule(rule: &Rule) -> Result<Program, &'static str> {
    let mut body = vec![answer(rule.answer)];
    // From the end on, so that each failed test knows how far it is to the end.
    for (argument, test) in rule.tests.iter().rev() {
        let low = ARGS + 8 * argument;
        let over = |body: &Program| u8::try_from(body.len()).map_err(|_| TOO_LONG);
        match *test {
            Test::Exactly(value) => {
                body.insert(0, jump_equal((value >> 32) as u32, 0, over(&body)?));
                body.insert(0, load(low + 4));
                body.insert(0, jump_equal(value as u32, 0, over(&body)?));
            }
            Test::Word(value) => body.insert(0, jump_equal(value, 0, over(&body)?)),
            Test::Without(mask) => {
                let over = over(&body)?;
                body.insert(
                    0,
                    libc::sock_filter {
                        code: (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16,
                        jt: over,
                        jf: 0,
                        k: mask,
                    },
                );
            }
        }
        body.insert(0, load(low));
    }
    Ok(body)
}

const fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

const fn jump_equal(value: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt, jf, k: value }
}

const fn jump(over: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JA) as u16, jt: 0, jf: 0, k: over }
}

const fn answer(answer: Answer) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: answer.code() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A call, as the kernel shows it to a program.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::confine) struct Made {
        pub(in crate::confine) arch: u32,
        pub(in crate::confine) nr: u32,
        pub(in crate::confine) args: [u64; 6],
    }

    pub(in crate::confine) fn x86_64(nr: i64, args: [u64; 4]) -> Made {
        Made { arch: ARCH_X86_64, nr: nr as u32, args: [args[0], args[1], args[2], args[3], 0, 0] }
    }

    pub(in crate::confine) fn i386(nr: u32, args: [u64; 4]) -> Made {
        Made { arch: ARCH_I386, nr, args: [args[0], args[1], args[2], args[3], 0, 0] }
    }

    /// Runs a program as the kernel does; panics where that would refuse it.
    pub(in crate::confine) fn run(program: &[libc::sock_filter], made: Made) -> u32 {
        let mut accumulator = 0_u32;
        let mut at = 0;
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    accumulator = match step.k {
                        NR => made.nr,
                        ARCH => made.arch,
                        offset => {
                            let argument = made.args[((offset - ARGS) / 8) as usize];
                            if (offset - ARGS).is_multiple_of(8) {
                                argument as u32
                            } else {
                                (argument >> 32) as u32
                            }
                        }
                    };
                }
                code if code == libc::BPF_JMP | libc::BPF_JA => at += step.k as usize,
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if accumulator == step.k { step.jt } else { step.jf });
                }
                code if code == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => {
                    at += usize::from(if accumulator & step.k != 0 { step.jt } else { step.jf });
                }
                code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                code => panic!("code {code:#x}"),
            }
        }
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        let rules = Rules {
            x86_64: vec![
                Rule::new(1, &[], Answer::Allow),
                Rule::new(2, &[(0, Test::Exactly(7 << 32 | 5)), (3, Test::Word(9))], Answer::Allow),
                Rule::new(2, &[(1, Test::Without(6))], Answer::Error(38)),
                Rule::new(2, &[], Answer::Kill),
                Rule::new(3, &[(0, Test::Word(1))], Answer::Allow),
            ],
            i386: vec![Rule::new(1, &[(1, Test::Exactly(4))], Answer::Allow)],
        };
        let program = rules.program().unwrap();
        let allow = Answer::Allow.code();
        let refuse = Answer::Refuse.code();
        assert_eq!(run(&program, x86_64(1, [9, 9, 9, 9])), allow);
        assert_eq!(run(&program, x86_64(2, [7 << 32 | 5, 0, 0, 9])), allow);
        assert_eq!(run(&program, x86_64(2, [7 << 32 | 5, 0, 0, 1 << 32 | 9])), allow, "only a word");
        assert_eq!(run(&program, x86_64(2, [5, 1, 0, 9])), Answer::Error(38).code());
        assert_eq!(run(&program, x86_64(2, [5, 2, 0, 9])), Answer::Kill.code());
        assert_eq!(run(&program, x86_64(3, [1, 0, 0, 0])), allow);
        assert_eq!(run(&program, x86_64(3, [2, 0, 0, 0])), refuse);
        assert_eq!(run(&program, x86_64(4, [0; 4])), refuse);
        assert_eq!(run(&program, x86_64(0x4000_0001, [0; 4])), refuse, "x32");
        assert_eq!(run(&program, i386(1, [0, 4, 0, 0])), allow);
        assert_eq!(run(&program, i386(1, [0, 5, 0, 0])), refuse);
        assert_eq!(run(&program, i386(3, [1, 0, 0, 0])), refuse);
        let other = Made { arch: 0xc000_00b7, ..x86_64(1, [0; 4]) };
        assert_eq!(run(&program, other), Answer::Kill.code());
    }

    #[test]
    fn a_table_without_rules_is_closed() {
        let rules = Rules { x86_64: vec![Rule::new(1, &[], Answer::Allow)], i386: Vec::new() };
        assert_eq!(run(&rules.program().unwrap(), i386(1, [0; 4])), Answer::Kill.code());
    }
}
