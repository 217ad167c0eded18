/* 32-bit code: 64 pages, each touched once, by narrow_leaf, which narrow_outer calls. Needs no library. */
    .text
    .globl _start
    .type _start, @function
_start:
    xorl %ebp, %ebp
    call narrow_outer
    movl $1, %eax /* exit(0) */
    xorl %ebx, %ebx
    int $0x80
    .size _start, . - _start

    .globl narrow_outer
    .type narrow_outer, @function
narrow_outer:
    pushl %ebp
    movl %esp, %ebp
    call narrow_leaf
    popl %ebp
    ret
    .size narrow_outer, . - narrow_outer

    .globl narrow_leaf
    .type narrow_leaf, @function
narrow_leaf:
    pushl %ebp
    movl %esp, %ebp
    movl $pages, %eax
    movl $64, %ecx
1:  movb $1, (%eax)
    addl $4096, %eax
    decl %ecx
    jnz 1b
    popl %ebp
    ret
    .size narrow_leaf, . - narrow_leaf

    .bss
    .balign 4096
pages: .skip 64 * 4096

    .section .note.GNU-stack, "", @progbits
