"""Watch an endless video stream with a vision-language model, in bounded memory, and answer while watching."""
