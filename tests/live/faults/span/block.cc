/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A span of the header in C++: it ends with its block, however that is left. */
#include "../../../../include/trapline.h"

static volatile int sum;

static int early(int i)
{
	TRAPLINE_SPAN(block);
	if (i % 2)
		return i;
	sum = sum + 1;
	return 0;
}

template <class T> struct Store {
	T get(T i)
	{
		TRAPLINE_SPAN(get);
		return early(i);
	}
};

int main()
{
	for (int i = 0; i < 10; i++)
		sum = sum + early(i) + Store<int>().get(i) + Store<short>().get(i);
	return 0;
}
