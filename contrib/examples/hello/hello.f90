! Sends a line to a function that reverses it, from Fortran: gleaner run --function libreverse.so:reverse -- ./hello-fortran
program hello
  use, intrinsic :: iso_c_binding
  use gleaner
  implicit none
  type(c_ptr) :: lease, invocation
  character(len=18), target :: line = "hello from Fortran", answer
  integer(c_int32_t) :: bytes
  integer(c_int) :: rc

  rc = gleaner_init(lease)
  if (rc /= GLEANER_OK) call give_up(rc)
  rc = gleaner_invoke(lease, c_loc(line), len(line, c_int32_t), c_loc(answer), len(answer, c_int32_t), invocation)
  if (rc /= GLEANER_OK) call give_up(rc)
  rc = gleaner_wait(invocation, -1_c_int64_t, bytes)
  if (rc /= GLEANER_OK) call give_up(rc)
  print '(A)', answer(1:bytes)
  call gleaner_free(invocation)
  call gleaner_finish(lease)

contains

  subroutine give_up(status)
    integer(c_int), intent(in) :: status

    print '(A)', gleaner_text(status)//": "//gleaner_detail()
    stop 1
  end subroutine
end program
