/* huge_model DIR: makes the weights of a saved model so large that the first step with them is not finite; roots and all
 * else stay consistent. What a broken run, or somebody with bad intentions, could hand to --resume. */
#include "cli/cli_model.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    struct at_cli_model m;
    struct at_diag diag = {0};
    if (argc != 2 || at_cli_model_read(argv[1], &diag, &m) != AT_OK) {
        fprintf(stderr, "huge_model: %s\n", argc == 2 ? diag.text : "usage: huge_model DIR");
        return 1;
    }
    for (size_t i = 0; i < m.model.params.count; i++) m.state.theta[i] *= 1e18f;
    at_err_t err = at_cli_model_write(argv[1], &m.state, &diag);
    if (err != AT_OK) fprintf(stderr, "huge_model: %s\n", diag.text);
    at_cli_model_release(&m);
    return err != AT_OK;
}
