/* Classifies handwritten digits of 8 x 8 pixels, one on each line of standard input: 64 numbers from 0 to 255.
 *
 *     cos-export convert-and-export digits --data digits --steps 4 --numerics int8 --out out/digits
 *     cos-export code out/digits --language c --out digits-c
 *     cc -std=c99 -O3 -I digits-c examples/c/main.c digits-c/digits.c -o classify
 *     ./classify < digits.txt */
#include "digits.h"

#include <stdio.h>

static digits_state state;

int main(void)
{
    for (;;) {
        uint8_t pixels[DIGITS_INPUTS];
        digits_input image[DIGITS_INPUTS];
        for (uint32_t i = 0u; i < DIGITS_INPUTS; ++i) {
            unsigned int pixel;
            if (scanf("%u", &pixel) != 1) {
                return i == 0u ? 0 : 1;
            }
            pixels[i] = (uint8_t)pixel;
        }
        digits_from_pixels(pixels, image);
        digits_run(&state, image);
        for (uint32_t step = 1u; step <= DIGITS_STEPS; ++step) {
            printf("%s%u", step > 1u ? " " : "", (unsigned int)digits_class(&state, step));
        }
        putchar('\n');
    }
}
