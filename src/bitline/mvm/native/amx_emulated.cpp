// The AMX path where there is no AMX, to test it.
#define BITLINE_EMULATE_AMX
#include "amx.cpp"
