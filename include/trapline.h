/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Marks in a program, between which `trapline faults` tells how much was page faults:
 *
 *     TRAPLINE_BEGIN(query);             a span of the thread begins
 *     run(statement);
 *     TRAPLINE_END(query);               and ends
 *
 *     trapline faults --span usdt:./app:trapline:query -p PID
 *
 * In C++, TRAPLINE_SPAN(query); lasts until the end of its block, however the block is left. A mark is a `nop`, and a
 * note in the file that says where it is: it costs that and nothing more while nobody looks. The notes are those of
 * USDT (provider `trapline`, points `query__start` and `query__done`), so other tracers understand them too.
 *
 * A span begins and ends in one thread, and ends before the next one of its name begins there, unless it holds that
 * (recursion). The name is a C identifier. For GCC and Clang, on x86_64 and aarch64; elsewhere the marks are nothing.
 */
#ifndef TRAPLINE_MARKS_H
#define TRAPLINE_MARKS_H

#if defined(__ELF__) && (defined(__x86_64__) || defined(__aarch64__)) && (defined(__GNUC__) || defined(__clang__))

/* One point: the instruction, a note of type 3 for it, and what tells by how much the file was moved after linking. */
#define TRAPLINE_POINT_(point)                                                                                         \
	__asm__ __volatile__("990: nop\n"                                                                              \
			     "	.pushsection .note.stapsdt,\"?\",\"note\"\n"                                            \
			     "	.balign 4\n"                                                                            \
			     "	.4byte 992f-991f, 994f-993f, 3\n"                                                       \
			     "991:	.asciz \"stapsdt\"\n"                                                               \
			     "992:	.balign 4\n"                                                                        \
			     "993:	.8byte 990b\n"                                                                      \
			     "	.8byte _.stapsdt.base\n"                                                                \
			     "	.8byte 0\n"                                                                             \
			     "	.asciz \"trapline\"\n"                                                                  \
			     "	.asciz \"" point "\"\n"                                                                \
			     "	.asciz \"\"\n"                                                                          \
			     "994:	.balign 4\n"                                                                        \
			     "	.popsection\n"                                                                          \
			     "	.ifndef _.stapsdt.base\n"                                                               \
			     "	.pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"                  \
			     "	.weak _.stapsdt.base\n"                                                                 \
			     "	.hidden _.stapsdt.base\n"                                                               \
			     "_.stapsdt.base:	.space 1\n"                                                              \
			     "	.size _.stapsdt.base, 1\n"                                                              \
			     "	.popsection\n"                                                                          \
			     "	.endif\n"                                                                               \
			     :                                                                                         \
			     :                                                                                         \
			     : "memory")

#else
#define TRAPLINE_POINT_(point) ((void)0)
#endif

#define TRAPLINE_BEGIN(name) TRAPLINE_POINT_(#name "__start")
#define TRAPLINE_END(name)   TRAPLINE_POINT_(#name "__done")

#ifdef __cplusplus
#define TRAPLINE_SPAN(name)                                                                                            \
	struct trapline_span_of_##name {                                                                               \
		__attribute__((always_inline)) trapline_span_of_##name()                                               \
		{                                                                                                      \
			TRAPLINE_BEGIN(name);                                                                          \
		}                                                                                                      \
		__attribute__((always_inline)) ~trapline_span_of_##name()                                              \
		{                                                                                                      \
			TRAPLINE_END(name);                                                                            \
		}                                                                                                      \
	} trapline_span_##name;                                                                                        \
	(void)trapline_span_##name
#endif

#endif
