"""Networks of other libraries: their files read into ours."""
