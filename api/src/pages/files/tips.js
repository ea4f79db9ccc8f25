// What an element has to say besides (`data-tip`), while it is pointed at or has the focus.
import { byId } from "./dom.js";

const GAP = 8;

export function startTips() {
  const tip = byId("tip");
  let of = null;
  const show = (target) => {
    of = target;
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const at = target.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const middle = Math.max(at.left, 0) + (Math.min(at.right, innerWidth) - Math.max(at.left, 0)) / 2;
    const left = Math.min(Math.max(12, middle - size.width / 2), innerWidth - size.width - 12);
    const above = at.top - size.height - GAP;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > GAP ? above : at.bottom + GAP}px`;
  };
  const hide = () => {
    of = null;
    tip.hidden = true;
  };
  const on = (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (target && target !== of) show(target);
    else if (!target) hide();
  };
  document.addEventListener("pointerover", on);
  document.addEventListener("focusin", (event) => (event.target.matches?.(":focus-visible") ? on(event) : hide()));
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.addEventListener("scroll", hide, { capture: true, passive: true });
}
