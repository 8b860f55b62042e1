"""Where lanes run, this machine or a Ray cluster; `gradprix.engines` is for users."""
