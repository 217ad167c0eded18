#!/bin/sh
# Makes the seeds that compilers make, small ones: `fuzz/seeds.sh`, in an empty folder, prints nothing.
# They are kept in fuzz/seeds, since other compilers make other ones.
set -eu
cat >a.c <<'C'
static volatile int n;
static inline __attribute__((always_inline)) int twice(int x) { return x + x + n; }
__attribute__((noinline)) int f(int x) { return twice(x) + twice(x + 1); }
__attribute__((section(".text.far"))) int g(int x) { return f(x) * 3; }
static int one(int x) { return x + 1; }
static void *choose(void) { return one; }
int h(int) __attribute__((ifunc("choose")));
struct s { int a; char b[7]; } s;
void _start(void) {
	s.a = g(3);
	__asm__ volatile("990: nop\n"
			 ".pushsection .note.stapsdt,\"?\",\"note\"\n.balign 4\n.4byte 992f-991f, 994f-993f, 3\n"
			 "991: .asciz \"stapsdt\"\n992: .balign 4\n993: .8byte 990b, 0, s\n"
			 ".asciz \"app\"\n.asciz \"query__start\"\n.asciz \"4@%%eax\"\n994: .balign 4\n.popsection");
	for (;;)
		;
}
C
cat >b.cc <<'C'
namespace app {
template <class T> struct Store {
	T v;
	__attribute__((noinline)) T query(T x) { return v + x; }
	inline __attribute__((always_inline)) T both(T x) { return query(x) + query(x + 1); }
};
__attribute__((noinline)) int close(Store<int> &s, double d) { return s.both(2) + (int)d; }
}
extern "C" void _start() {
	app::Store<int> s{3};
	volatile int r = app::close(s, 1.5);
	(void)r;
	for (;;)
		;
}
C
small='-nostdlib -static -fno-asynchronous-unwind-tables -O1 -Wl,-n,-z,noseparate-code,-z,norelro,--build-id=sha1 -fdebug-prefix-map='$PWD'=/src'
for version in 2 3 4 5; do gcc $small -gdwarf-$version -o c$version a.c; done
gcc $small -g -ffunction-sections -gz=zlib -o zlib a.c
gcc $small -gdwarf-5 -gsplit-dwarf -o split a.c
g++ $small -gdwarf-5 -o cpp5 b.cc
g++ $small -gdwarf-4 -fdebug-types-section -o cpp4 b.cc
clang++-19 $small -gdwarf-5 -o clang5 b.cc
clang++-19 $small -gline-tables-only -o clangl b.cc
gcc $small -o plain a.c
gcc -nostdlib -shared -fPIC -O1 -Wl,-n,-z,noseparate-code,--build-id=sha1 -o shared -x c++ b.cc
gcc $small -m32 -o narrow -x c++ b.cc 2>/dev/null || :
cp c5 stripped && objcopy --only-keep-debug c5 c5.debug && strip stripped && objcopy --add-gnu-debuglink=c5.debug stripped
objcopy --only-keep-debug cpp5 cpp5.debug
cat >u.c <<'C'
void use(void *);
int frames(int n) { char all[64]; use(all); return n ? frames(n - 1) + all[n & 63] : 1; }
int grows(int n) { char *some = __builtin_alloca(n); use(some); return some[0]; }
int aligned(int n) { int some[n] __attribute__((aligned(64))); use(some); return some[n - 1]; }
C
cat >u.S <<'S'
	.globl use
use:
	.cfi_startproc
	push %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset rbp, -16
	.cfi_remember_state
	mov %rsp, %rbp
	.cfi_def_cfa_register rbp
	leave
	.cfi_restore_state
	ret
	.cfi_endproc
	nop
	.globl back
back:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_escape 0x0f, 0x04, 0x77, 0xa0, 0x01, 0x06
	.cfi_escape 0x10, 0x06, 0x03, 0x77, 0xf8, 0x00
	.cfi_escape 0x10, 0x10, 0x03, 0x77, 0xa8, 0x01
	syscall
	.cfi_endproc
	.globl plt
plt:
	.cfi_startproc
	.cfi_def_cfa_offset 16
	.cfi_escape 0x0f, 0x0b, 0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22
	nop
	.cfi_endproc
	.globl _start
_start:
	.cfi_startproc
	.cfi_undefined rip
	call frames
	.cfi_endproc
	.section .note.GNU-stack,"",@progbits
S
unwound='-nostdlib -static -Wl,-z,noseparate-code,-Ttext=0x1000,--section-start=.eh_frame=0x200000,--build-id=none -o u'
mkdir -p elf dwarf eh_frame
gcc $unwound -O2 u.c u.S && objcopy --dump-section .eh_frame=eh_frame/optimized u
gcc $unwound -O0 u.c u.S && objcopy --dump-section .eh_frame=eh_frame/frames u
mv plain shared stripped narrow elf/ 2>/dev/null || :
cp cpp5 elf/with-symbols
mv c2 c3 c4 c5 zlib split cpp4 cpp5 clang5 clangl c5.debug dwarf/
rm -f a.c b.cc u.c u.S u *.dwo cpp5.debug
