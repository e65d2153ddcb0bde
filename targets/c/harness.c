/* Runs images, or frames of all steps, from one file and writes what comes of them to another: of each image the spikes of all layers, if the
 * network was compiled to tell of them, and the sums of the readout. */
#include "network.h"

#include <stdio.h>

#ifndef NETWORK_FRAMES
#define NETWORK_FRAMES 1u
#endif

static network_state state;
static network_input image[NETWORK_FRAMES * NETWORK_INPUTS];
static FILE *results;

#ifdef NETWORK_TRACE
void network_trace(uint32_t layer, uint32_t step, const uint8_t *fired, uint32_t bytes)
{
    (void)layer;
    (void)step;
    (void)fwrite(fired, 1u, bytes, results);
}
#endif

int main(int count, char **arguments)
{
    if (count != 3) {
        return 2;
    }
    FILE *const images = fopen(arguments[1], "rb");
    results = fopen(arguments[2], "wb");
    if (images == NULL || results == NULL) {
        perror("a file of the run cannot be opened");
        return 1;
    }
    while (fread(image, sizeof image, 1u, images) == 1u) {
        network_run(&state, image);
        (void)fwrite(state.sums, sizeof state.sums, 1u, results);
    }
    if (ferror(images) != 0 || ferror(results) != 0 || fclose(results) != 0) {
        perror("a file of the run cannot be read or written");
        return 1;
    }
    return 0;
}
